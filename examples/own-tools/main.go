// Command own-tools is keyway with a tool written in Go.
package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/keyway-agents/keyway/shared/cli"
	"github.com/keyway-agents/keyway/shared/tool"
)

// stock stands for a database of one's own.
var stock = map[string]int{"tea": 12, "coffee": 0}

type article struct {
	Name string `json:"name" jsonschema:"the article, in the singular"`
	Want int    `json:"want,omitempty" jsonschema:"how many are wanted; 1 when left out"`
}

// inStock knows for whom it answers from the verified token, never from the model.
func inStock(ctx context.Context, a article) (string, error) {
	have, known := stock[strings.ToLower(a.Name)]
	if !known {
		return "", fmt.Errorf("there is no article %q; there are tea and coffee", a.Name)
	}
	who := tool.CallerFrom(ctx).UserID
	return fmt.Sprintf("%d of %s in stock, enough for %s: %t", have, a.Name, who, have >= max(a.Want, 1)), nil
}

func main() {
	cli.Main(cli.Own{Tools: []tool.Tool{
		tool.Func("in_stock", "Tell how many of an article the shop has.", inStock),
	}})
}
