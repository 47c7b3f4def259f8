"""How long does one wait before anything happens? `tremorscope --help`, and what its import adds to torch's."""

from __future__ import annotations

from timing import Row, child_seconds, record

COMMANDS = {
    "bare interpreter": ["-c", "pass"],
    "tremorscope --help": ["-m", "tremorscope", "--help"],
    "import tremorscope": ["-c", "import tremorscope"],
    "import torch": ["-c", "import torch"],
    "import torch, tremorscope": ["-c", "import torch, tremorscope"],
    "every public name": ["-c", "import tremorscope as t; [getattr(t, name) for name in t.__all__]"],
}


WITH_TORCH = ("import torch, tremorscope", "every public name")
ROUNDS = 5


def main() -> None:
    for arguments in COMMANDS.values():
        child_seconds(*arguments)  # its files are in the disk cache now
    # Round after round, not command after command: a busy minute of the machine then hits all of them alike.
    rounds = [{name: child_seconds(*arguments) for name, arguments in COMMANDS.items()} for _ in range(ROUNDS)]
    wall = {name: min(each[name].wall for each in rounds) for name in COMMANDS}
    cpu = {name: min(each[name].cpu for each in rounds) for name in COMMANDS}
    rows: list[Row] = [
        {
            "process": name,
            "wall s": wall[name],
            "CPU s": cpu[name],
            "CPU s over import torch": cpu[name] - cpu["import torch"] if name in WITH_TORCH else "-",
        }
        for name in COMMANDS
    ]
    record(
        "command_line",
        rows,
        title="Starting up",
        note=f"Best of {ROUNDS} fresh processes each, files in the disk cache.",
    )


if __name__ == "__main__":
    main()
