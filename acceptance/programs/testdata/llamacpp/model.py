"""Makes a tiny model for llama.cpp and serves it with llama.cpp's own server.

    model.py DIRECTORY PORT

The model does not understand anything. It has one dimension for each token of its vocabulary,
and its output matrix leads from each token to one other token. So it is a set of fixed answers,
each a chain of tokens that occur nowhere else. The chat template chooses the answer: it ends the
prompt with a token that says which chain begins. Everything else (the template, the parser of
tool calls, the stream, the HTTP API) is llama.cpp's.
"""

import sys
import time
from pathlib import Path

import gguf
import numpy
import xllamacpp

# The answers, by the token that begins them. The pieces are the tokens, each of which occurs only
# once. A character outside ASCII is cut.
ANSWERS = {
    "<|text|>": [b"The ", b"t\xc3", b"\xa9 ", b"is ", b"ready."],
    "<|call|>": [b"<tool_call>\n", b'{"name": "', b"look", b'_up", ', b'"arguments": ', b'{"what"', b': "te', b'a"}', b"}\n</tool", b"_call>"],
    "<|calls|>": [
        b"<tool_call>", b'\n{"name": ', b'"look_up', b'", "arguments"', b': {"wha', b't": "t', b"ea", b'"}}\n', b"</tool_call>\n",
        b"<tool_", b'call>\n{"na', b'me": "lo', b'ok_up", "arg', b'uments": {', b'"what":', b' "cake', b'"}}', b"\n</tool_call>",
    ],
    "<|confirm|>": [
        b"<tool", b'_call>\n{"name":', b' "delete_', b'account", ', b'"argum', b'ents": {"', b'id": ', b"7", b"}}", b"\n</tool_ca", b"ll>",
    ],
    "<|think|>": [
        b"<think>", b"\nA tool ", b"knows", b".\n</think>", b"\n\nLet me ", b"look. ", b'<tool_call>\n{"name"', b': "look_up", "a',
        b'rguments"', b': {"what": "cocoa', b'"}}\n</', b"tool_call>",
    ],
    "<|ponder|>": [
        b"<thi", b"nk>\nIs ", b"it right?", b"\n</thi", b"nk>\n\n<tool_call", b">\n{", b'"name": "delete_acc', b'ount", "arguments":',
        b' {"id"', b": 8}", b"}\n</to", b"ol_call>",
    ],
    "<|thought|>": [b"I thought ", b"and looked."],
    "<|done|>": [b"I ", b"looked ", b"it ", b"up."],
}
END = "<|im_end|>"
CONTROL = ["<|im_start|>", END, *ANSWERS]

TEMPLATE = """{%- set ns = namespace(thought=false) -%}
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\n' -}}
{%- if m.role == 'tool' -%}{{- '<tool_response>\n' + m.content + '\n</tool_response>' -}}
{%- else -%}
{%- if m.reasoning_content -%}
{%- set ns.thought = true -%}
{{- '<think>\n' + m.reasoning_content + '\n</think>\n\n' -}}
{%- endif -%}
{{- m.content or '' -}}
{%- endif -%}
{%- for c in m.tool_calls or [] -%}
{{- '<tool_call>\n{"name": "' + c.function.name + '", "arguments": ' -}}
{{- c.function.arguments if c.function.arguments is string else c.function.arguments | tojson -}}
{{- '}\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n' -}}
{%- set last = messages[-1] -%}
{%- if last.role == 'tool' and ns.thought -%}{{- '<|thought|>' -}}
{%- elif last.role == 'tool' -%}{{- '<|done|>' -}}
{%- elif tools and last.content is string and 'ponder' in last.content -%}{{- '<|ponder|>' -}}
{%- elif tools and last.content is string and 'think' in last.content -%}{{- '<|think|>' -}}
{%- elif tools and last.content is string and 'two calls' in last.content -%}{{- '<|calls|>' -}}
{%- elif tools and last.content is string and 'one call' in last.content -%}{{- '<|call|>' -}}
{%- elif tools and last.content is string and 'confirm' in last.content -%}{{- '<|confirm|>' -}}
{%- else -%}{{- '<|text|>' -}}{%- endif -%}
{%- endif -%}"""


def byte_names():
    """Returns the printable character by which the vocabulary writes each byte, as GPT-2 does."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    names, others = {}, 0
    for byte in range(256):
        if byte in printable:
            names[byte] = chr(byte)
        else:
            names[byte] = chr(256 + others)
            others += 1
    return names


def make(path):
    names = byte_names()
    spell = lambda piece: "".join(names[b] for b in piece)
    tokens = [names[b] for b in range(256)]
    pieces = [spell(p) for chain in ANSWERS.values() for p in chain if len(p) > 1]
    assert len(set(pieces)) == len(pieces), "a piece occurs twice"
    tokens += pieces + CONTROL
    ids = {token: i for i, token in enumerate(tokens)}
    size = (len(tokens) + 63) // 64 * 64

    follows = {}
    for begin, chain in ANSWERS.items():
        previous = begin
        for piece in [*map(spell, chain), END]:
            assert ids[previous] not in follows, f"{previous!r} has two followers"
            follows[ids[previous]] = ids[piece]
            previous = piece
    output = numpy.zeros((size, size), numpy.float32)  # rows are the tokens that may follow
    for token in range(size):
        output[follows.get(token, ids[END]), token] = 1

    w = gguf.GGUFWriter(path, "llama")
    w.add_name("fixed answers")
    w.add_context_length(CONTEXT)
    w.add_embedding_length(size)
    w.add_block_count(1)
    w.add_feed_forward_length(32)
    w.add_head_count(8)
    w.add_head_count_kv(8)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(size)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    padding = [f"<|unused{i}|>" for i in range(size - len(tokens))]
    w.add_token_list(tokens + padding)
    normal, control, unused = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL, gguf.TokenType.UNUSED
    w.add_token_types(
        [control if t in CONTROL else normal for t in tokens] + [unused for _ in padding])
    w.add_token_merges(["< |"])
    w.add_bos_token_id(ids["<|im_start|>"])
    w.add_eos_token_id(ids[END])
    w.add_eot_token_id(ids[END])
    w.add_add_bos_token(False)
    w.add_chat_template(TEMPLATE)

    zeros = lambda *shape: numpy.zeros(shape, numpy.float32)
    ones = lambda n: numpy.ones(n, numpy.float32)
    w.add_tensor("token_embd.weight", numpy.eye(size, dtype=numpy.float32))
    w.add_tensor("output_norm.weight", ones(size))
    w.add_tensor("output.weight", output)
    w.add_tensor("blk.0.attn_norm.weight", ones(size))
    for name in "attn_q", "attn_k", "attn_v", "attn_output":
        w.add_tensor(f"blk.0.{name}.weight", zeros(size, size))
    w.add_tensor("blk.0.ffn_norm.weight", ones(size))
    w.add_tensor("blk.0.ffn_gate.weight", zeros(32, size))
    w.add_tensor("blk.0.ffn_up.weight", zeros(32, size))
    w.add_tensor("blk.0.ffn_down.weight", zeros(size, 32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


# The context in tokens; a byte of a prompt is one.
CONTEXT = 4096


def main():
    path = Path(sys.argv[1]) / "model.gguf"
    make(path)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.hostnames = ["127.0.0.1"]
    params.port = int(sys.argv[2])
    params.n_ctx = CONTEXT
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.warmup = False
    params.sampling.temp = 0
    server = xllamacpp.Server(params)
    print("listening at", server.listening_address, flush=True)
    while True:
        time.sleep(3600)


main()
