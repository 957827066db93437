"""`python -m finetune_trainer`: the launcher; with `--rank`: one of the processes it starts."""

import sys

from finetune_api.exits import ExitCode


def main(arguments: list[str]) -> int:
    """Run the program and return its exit code."""
    if not arguments:
        from finetune_trainer.pod import launcher

        return launcher.main()
    if arguments == ["--rank"]:
        from finetune_trainer.pod import rank

        return rank.main()
    sys.stderr.write(f"arguments ({' '.join(arguments)}) must be empty, or --rank as the launcher gives it\n")
    return ExitCode.USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
