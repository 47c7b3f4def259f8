"""Language models of anybody's: text in, text out, and what they find likely.

| module | question |
|---|---|
| `encode` | which tokens is this text, as a batch that the model takes? |
| `generation` | how does the model go on? |
| `scoring` | how likely is this continuation, option, row of tokens? |

All take a `Network` with a tokenizer, and use the network's own weights, edited or not.
"""
