"""`python -m finetune_trainer`: the launcher; with `--rank`: one of the processes it starts.

With `--look QUESTION`: the process in which the prepare stage has a model's class asked, since that brings torch.
"""

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
    if len(arguments) == 2 and arguments[0] == "--look":
        from finetune_trainer.pod import imports

        imports.leave_out(imports.UNNEEDED_TO_LOOK)
        from finetune_trainer.stages import preflight

        preflight.answer(arguments[1])
        return ExitCode.OK
    sys.stderr.write(f"arguments ({' '.join(arguments)}) must be empty, or --rank as the launcher gives it\n")
    return ExitCode.USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
