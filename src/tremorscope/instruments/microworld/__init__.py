"""The microworld: a text whose facts, rules and spurious correlations are known, because they were put there.

A small language model of ours learns from it, and every study of language models runs on that one by default. Each
strand is one module with `examples(split, seed, count, ...)`, which gives frozen examples with their labels, and
`stream(...)`, which does not end:

| strand | question | what can be held out of training |
|---|---|---|
| `agreement` | subject and verb agree in number: minimal pairs in four structures | words before, noun with verb |
| `biographies` | what is this person's profession? gender goes with it as often as one likes | wordings, full names |
| `calendar` | two days after Monday is Wednesday; lists in order | wordings, offset with start |
| `requests` | answered or refused, by topic | wordings and speakers, intent with item |
| `stories` | was somebody hurt? `story_reader.read` judges any text of the grammar | wordings, victim with place |
| `quiz` | multiple choice about the facts of `world` | wordings, facts that are told and never asked |
| `induction` | sequences that come again | what stands between, word with next word |
| `prose` | documentation of the Python standard library | whole modules |

`corpus` mixes them, `tokenizer` makes tokens of words, and `packing` makes rows of tokens, and the shuffled ones of the
null. Nothing depends on the machine or on the order of a set; prose depends on the installed Python, and says so.
"""
