"""How long does one wait for the language model that comes with the house? Beyond what importing its library takes."""

from __future__ import annotations

from timing import Row, child_seconds, record

# The classes that loading uses: `import transformers` alone imports next to nothing.
IMPORTS = "import transformers; transformers.GPT2LMHeadModel, transformers.PreTrainedTokenizerFast; "
LOADS = {
    "import transformers": "",
    "load builtin:microworld": "import tremorscope; tremorscope.load('builtin:microworld')",
    "load builtin:microworld, first word": (
        "import tremorscope; from tremorscope.instruments.language.generation import generate; "
        "generate(tremorscope.load('builtin:microworld'), ['The'], max_new_tokens=1)"
    ),
}
ROUNDS = 5


def main() -> None:
    for code in LOADS.values():
        child_seconds("-c", IMPORTS + code)  # its files are in the disk cache now
    # Round after round, as a busy minute of the machine then hits all of them alike.
    rounds = [{name: child_seconds("-c", IMPORTS + code) for name, code in LOADS.items()} for _ in range(ROUNDS)]
    wall = {name: min(each[name].wall for each in rounds) for name in LOADS}
    cpu = {name: min(each[name].cpu for each in rounds) for name in LOADS}
    start = next(iter(LOADS))
    rows: list[Row] = [
        {
            "process": name,
            "wall s": wall[name],
            "CPU s": cpu[name],
            "CPU s beyond import transformers": "-" if name == start else cpu[name] - cpu[start],
        }
        for name in LOADS
    ]
    record(
        "load_model",
        rows,
        title="Loading the microworld's language model",
        note=f"Best of {ROUNDS} fresh processes each, files in the disk cache; wanted below 2 CPU seconds.",
    )


if __name__ == "__main__":
    main()
