"""Settings: kept whole, never lost, whatever lies in the file."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from app import settings
from app.choice import first_choice
from app.kernel_runs import KERNELS
from app.settings import Layout, PictureSettings, Settings
from engine.home import FOLDER_VARIABLE
from tests.app import feed


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    choice = first_choice(feed.H200)
    kept = Settings(theme="light", layouts={"attention": Layout(docks="YQ==")}, picture=PictureSettings(scale=4, format="svg"),
                    choices={"attention": msgspec.Raw(msgspec.json.encode(choice))})
    path = tmp_path / "deep" / "settings.json"
    assert settings.save(kept, path) == ""
    loaded, wrong = settings.load(path)
    assert wrong == ""
    assert KERNELS.kept(bytes(loaded.choices.pop("attention")), feed.hello()) == choice
    assert loaded == msgspec.structs.replace(kept, choices={})
    assert [file.name for file in path.parent.iterdir()] == ["settings.json"]


def test_at_first_there_are_defaults(tmp_path: Path) -> None:
    assert settings.load(tmp_path / "settings.json") == (Settings(), "")


@effort(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.just(b'{"theme": "pink"}') | st.just(b"[" * 5000))
def test_a_damaged_file_is_set_aside_and_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(content)
    loaded, wrong = settings.load(path)
    if wrong:
        assert loaded == Settings()
        assert not path.exists()
        assert path.with_suffix(".damaged.json").read_bytes() == content
        assert wrong.count("\n") == 0


def test_the_folder_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert settings.path() == tmp_path / "settings.json"


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wrong = settings.save(Settings(), tmp_path / "file" / "settings.json")
    assert FOLDER_VARIABLE in wrong


def test_where_writing_fails_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "settings.json"
    settings.save(Settings(theme="light"), path)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left" in settings.save(Settings(), path)
    assert settings.load(path)[0].theme == "light"
    assert [file.name for file in tmp_path.iterdir()] == ["settings.json"]
