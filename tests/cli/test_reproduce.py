"""The verb reproduce: what it refuses, and that it hands everything on."""

from typer.testing import CliRunner

from mightnt import cli
from mightnt.experiments import chat


def invoke(*words):
    return CliRunner().invoke(cli.app, ["reproduce", *words])


def test_an_unknown_profile_is_one_sentence(tmp_path):
    result = invoke("--profile", "huge", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert result.stderr == "mightnt: unknown profile 'huge'; allowed are quick, default, full\n"
    assert not list(tmp_path.iterdir())


def test_an_earlier_run_is_not_overwritten(tmp_path):
    chat.open_folder(tmp_path, {"experiment": "something"}, resume=False)
    result = invoke("--out", str(tmp_path))
    assert result.exit_code == 2
    assert "--resume" in result.stderr


def test_everything_is_handed_on(tmp_path, monkeypatch):
    asked = {}

    def note(folder, profile, seed, watcher, resume, workers):
        asked.update(folder=folder, profile=profile, seed=seed, resume=resume, workers=workers)
        raise chat.InputError("enough seen")

    monkeypatch.setattr(chat, "reproduce", note)
    words = ["--profile", "quick", "--demonstrations", "77", "--seed", "3", "--workers", "1", "--resume"]
    assert invoke(*words, "--out", str(tmp_path)).exit_code == 2
    profile = asked.pop("profile")
    assert (profile.name, profile.n_demonstrations) == ("quick", (77,))
    assert asked == {"folder": tmp_path, "seed": 3, "resume": True, "workers": 1}
