"""What all commands have in common."""

import signal
import subprocess
import sys

import pytest

from verl_relift import __main__ as listing
from verl_relift.evaluate import __main__ as evaluate

PROGRAM = """
from verl_relift.usage import argument_parser
argument_parser("verl_relift.plan", "Text.").parse_args([])
raise {error}
"""


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [("KeyboardInterrupt", "interrupted\n", -signal.SIGINT), ("KeyError('x')", "KeyError: 'x'\n", 1)],
)
def test_ctrl_c_ends_a_command_with_a_line(error, said, status):
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(error=error)],
        capture_output=True,
        text=True,
        # Tests that a shell has put into the background ignore it, and their children with them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert ended.returncode == status and ended.stderr.endswith(said)
    assert ("Traceback" in ended.stderr) == (status == 1)


def test_ctrl_c_ends_an_evaluation_with_what_comes_next(monkeypatch, capsys):
    def interrupt(options) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "_evaluate", interrupt)
    with pytest.raises(SystemExit) as end:
        evaluate.main(["--model", "model", "--data", "data.parquet", "--output", "output"])
    assert end.value.code == 130
    assert capsys.readouterr().err == "evaluate: interrupted; the same command generates the missing responses\n"


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ([], 0, "usage: python -m COMMAND --help"),
        (["train", "method=grpo"], 2, "train method=grpo: the command is python -m verl_relift.train ..."),
        (["jsonl"], 2, "jsonl: the command is python -m data_preprocess.jsonl ..."),
        (["nothing"], 2, "nothing: this only lists the commands; see python -m verl_relift"),
    ],
)
def test_the_list_of_commands_runs_none(given, status, said, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["verl_relift", *given])
    assert listing.main() == status
    out, err = capsys.readouterr()
    assert (err if status else out).startswith(said)
