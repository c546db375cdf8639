package cli

import (
	"reflect"

	"github.com/keyway-agents/keyway/shared/config"
)

// asWritten replaces the values of variables in every exported text below v, which is a pointer: a command prints what
// keyway.yaml says, and never the environment of the machine that checks the file. Names of members and keys of maps
// stay, because a file can't have variables there.
func asWritten(cfg *config.Config, v any) { replaceTexts(reflect.ValueOf(v).Elem(), cfg.AsWritten) }

func replaceTexts(v reflect.Value, written func(string) string) {
	switch v.Kind() {
	case reflect.String:
		if v.CanSet() {
			v.SetString(written(v.String()))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			replaceTexts(v.Elem(), written)
		}
	case reflect.Struct:
		for _, field := range v.Fields() {
			if field.CanSet() {
				replaceTexts(field, written)
			}
		}
	case reflect.Slice:
		for _, element := range v.Seq2() {
			replaceTexts(element, written)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			element := reflect.New(v.Type().Elem()).Elem()
			element.Set(v.MapIndex(key))
			replaceTexts(element, written)
			v.SetMapIndex(key, element)
		}
	case reflect.Interface:
		if !v.IsNil() {
			element := reflect.New(v.Elem().Type()).Elem()
			element.Set(v.Elem())
			replaceTexts(element, written)
			v.Set(element)
		}
	}
}
