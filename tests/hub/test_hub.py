"""To the Hub: the real client pushes an export to a server that speaks the Hub's protocol.

What a stranger reads there is in test_elsewhere.py."""

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import TrainedStages
from hub_client import the_only_hub
from hub_server import LFS_SUFFIXES, READ_TOKEN, WRITE_TOKEN, HubServer, running
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled
from shipped_files import SHIPPED

from engagement_recognition import EngagementForVideoClassification, train
from engagement_recognition.hub.publish import assemble
from engagement_recognition.hub.push import push_folder
from engagement_recognition.processor.input_errors import EngagementInputError, RecipeError
from engagement_recognition.training.arguments import Recipe

TRAINED_IDS = {"expression": "org/faces", "engagement": "org/clips"}


def push(folder: Path, repository: str, token: str, private: bool | None) -> str:
    """What a push came to, in one line: its address or its error."""
    try:
        return push_folder(folder, repository, private, token)
    except EngagementInputError as error:
        return f"refused: {error}".replace("\n", " NEW LINE ")


@pytest.fixture(scope="module")
def lfs_files(assembled: Path) -> int:
    """How many of the files go through LFS."""
    return sum(path.suffix in LFS_SUFFIXES for path in assembled.rglob("*"))


@pytest.fixture(scope="module")
def hub(lfs_files: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    # Requests about a repository: what it is, what it holds, preupload, LFS batch, then a PUT and a verification a
    # file, then the commit.
    breaks = {"preupload": 3, "first-put": 5, "last-verify": 4 + 2 * lfs_files, "commit": 5 + 2 * lfs_files}
    server = HubServer(tmp_path_factory.mktemp("hub"), {f"org/break-{name}": at for name, at in breaks.items()})
    with running(server):
        yield server


@pytest.fixture(scope="module")
def assembled(trained: TrainedStages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `engagement publish` would push."""
    folder = tmp_path_factory.mktemp("assembled") / "engagement_hub"
    assemble(trained.engagement, folder, "org/public")
    return folder


@pytest.fixture(scope="module")
def strangers(assembled: Path) -> dict[str, tuple[dict[str, bytes], str]]:
    """Repositories that hold something else than an earlier version of the model, and what is said of each."""
    config = (assembled / "config.json").read_bytes()
    return {
        "org/thesis": ({"config.json": config, "a.bin": b"1", "b/vocab.txt": b"2", "c.csv": b"3", "d.csv": b"4"},
                       "a.bin, b/vocab.txt, c.csv and 1 more"),
        "org/weights": ({"model.safetensors": b"5"}, "model.safetensors"),
        "org/faces-alone": ({"config.json": config.replace(b"ForVideo", b"ForImage"), "model.safetensors": b"6"},
                            "EngagementForImageClassification, this one EngagementForVideoClassification"),
        "org/resnet": ({"config.json": b'{"architecture": "resnet18"}'}, "config.json names no architecture"),
        "org/broken": ({"config.json": b"["}, "config.json names no architecture"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained") / "run"


@pytest.fixture(scope="module")
def pushed(
    hub: HubServer,
    assembled: Path,
    strangers: dict[str, tuple[dict[str, bytes], str]],
    trained: TrainedStages,
    tiny_recipe: dict[str, object],
    trained_run: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, list[str]]:
    """What each push said, by repository, in order; and under "train" the lines of a training that pushes."""
    pushes = [("org/public", WRITE_TOKEN, None), ("org/public", WRITE_TOKEN, None)]
    pushes += [("org/refused", token, None) for token in ("hf_unknown", READ_TOKEN)]
    pushes += [("org/public", WRITE_TOKEN, True)]
    pushes += [(repository, WRITE_TOKEN, None) for repository in hub.fail_at for _ in range(2)]
    for repository, (contents, _) in strangers.items():
        hub.fill(repository, contents)
    old = [*(Path(module).name for module in SHIPPED), "figures/test_confusion.png", "figures/old_reliability.svg"]
    old += ["handler.py", "examples/drawn_face.png", "model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    old += ["preprocessor_config.json", "README.md", "results.json"]
    hub.fill("org/older", {**dict.fromkeys(old, b"old"), "config.json": (assembled / "config.json").read_bytes()})
    hub.fill("org/fresh", {"README.md": b"---\nlicense: mit\n---\n"})  # as the Hub's own page makes one
    pushes += [(repository, WRITE_TOKEN, None) for repository in (*strangers, "org/older", "org/fresh")]
    refused_card = tmp_path_factory.mktemp("refused") / "hub"
    assemble(trained.engagement, refused_card, "org/licence", "made-up-1.0")
    from_folders = [(assembled, *push) for push in pushes]
    from_folders.append((refused_card, "org/licence", WRITE_TOKEN, None))
    home = tmp_path_factory.mktemp("home")
    recipe = {**tiny_recipe, "output_dir": str(trained_run), "num_train_epochs": 1}
    targets = {f"{stage}_hub_model_id": name for stage, name in TRAINED_IDS.items()}
    lines: dict[str, list[str]] = {}
    with the_only_hub(hub, home / "cache"):
        for folder, repository, token, private in from_folders:
            lines.setdefault(repository, []).append(push(folder, repository, token, private))
        with contextlib.redirect_stdout(io.StringIO()) as said:
            train.train(Recipe(recipe), {"push_to_hub": "true", **targets})
    return {**lines, "train": said.getvalue().splitlines()}


def test_the_weights_header_alone_can_be_read(pushed: dict[str, list[str]], hub: HubServer, trained: TrainedStages):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        metadata = HfApi(hub.endpoint).get_safetensors_metadata("org/public")
    model = EngagementForVideoClassification.from_pretrained(trained.engagement)
    assert sum(metadata.parameter_count.values()) == sum(weight.numel() for weight in model.state_dict().values())
    assert hub.requests[-1].range.startswith("bytes=0-")


def test_the_server_knows_all_that_clients_ask_for(pushed: dict[str, list[str]], hub: HubServer):
    assert hub.unknown == []


def test_what_is_on_the_hub_is_the_export_and_nothing_else(
    pushed: dict[str, list[str]], hub: HubServer, trained: TrainedStages, assembled: Path
):
    files = hub.files("org/public")
    files.pop(".gitattributes")
    assert files == {path.relative_to(assembled).as_posix(): path.read_bytes()
                     for path in assembled.rglob("*") if path.is_file()}  # fmt: skip
    assert {"handler.py", "requirements.txt", "model.safetensors", "results.json"} <= files.keys()
    plot = r"figures/(\w+_(confusion|reliability|risk_coverage)|training_curves)\.(png|svg)|examples/drawn_face\.png"
    for name, content in files.items():
        assert not name.startswith(("_", ".")) and "/_" not in name
        assert Path(name).suffix in {".py", ".json", ".md", ".txt", ".safetensors", ".png", ".svg"}
        assert content[:1] != b"\x80" and content[:2] != b"PK"  # a pickle, bare or in torch.save's zip
        assert Path(name).suffix not in (".png", ".svg") or re.fullmatch(plot, name)  # and no picture of anybody
        assert str(trained.run_dir).encode() not in content and str(trained.recipe["cache_dir"]).encode() not in content


def test_training_pushes_each_stage_s_export(hub: HubServer, pushed: dict[str, list[str]], trained_run: Path):
    printed = "\n".join(pushed["train"])
    for stage, repository in TRAINED_IDS.items():
        assert f"pushed to {hub.endpoint}/{repository}" in printed
        files = hub.files(repository)
        assert files["model.safetensors"] == (trained_run / stage / "model.safetensors").read_bytes()
        assert f'model="{repository}"' in files["README.md"].decode()
        assert not [name for name in files if name.endswith((".bin", ".pt", ".parquet"))]


@pytest.mark.parametrize("second", ["org/name", "Org/Name"])
def test_two_stages_are_not_pushed_to_one_repository(second: str, tiny_recipe: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train, "load_stage_data", None)  # touching it would fail: it is refused before that
    options = {"push_to_hub": "true", "expression_hub_model_id": "org/name", "engagement_hub_model_id": second}
    with pytest.raises(
        RecipeError, match=r"org/name; .*--expression_hub_model_id .*--engagement_hub_model_id .*different"
    ):
        train.train(Recipe({**tiny_recipe, "output_dir": "nowhere"}), options)


def test_a_push_without_changes_adds_no_commit(pushed: dict[str, list[str]], hub: HubServer):
    assert pushed["org/public"][:2] == [f"{hub.endpoint}/org/public"] * 2
    assert len(hub.repositories["org/public"].commits) == 2  # the repository's first, and the model


def test_what_shall_be_private_is_not_pushed_to_a_public_repository(pushed: dict[str, list[str]]):
    assert re.match(r"refused: org/public is public, .* private", pushed["org/public"][2])


def test_an_interrupted_push_leaves_nothing_half_done_and_can_be_repeated(pushed: dict[str, list[str]], hub: HubServer):
    repositories = [name for name in pushed if "break" in name]
    assert len(repositories) == 4 and hub.fail_at == {}  # each was interrupted
    for repository in repositories:
        first, second = pushed[repository]
        assert first.startswith("refused: ") and "No space left on this Hub" in first and "push again" in first
        assert "NEW LINE" not in first and "hf auth login" not in first
        assert second == f"{hub.endpoint}/{repository}"
        assert len(hub.repositories[repository].commits) == 2
        assert hub.files(repository) == hub.files("org/public")


def test_a_refused_token_is_one_line(pushed: dict[str, list[str]], hub: HubServer):
    unknown, read_only = pushed["org/refused"]
    assert "Invalid credentials" in unknown and read_only.count("write token") == 1
    for line in (unknown, read_only):
        assert line.startswith("refused: ") and "hf auth login" in line and "NEW LINE" not in line
        assert "hf_unknown" not in line and READ_TOKEN not in line
    assert "org/refused" not in hub.repositories


def test_what_is_not_an_earlier_version_of_the_model_is_left_alone(
    hub: HubServer, pushed: dict[str, list[str]], strangers: dict[str, tuple[dict[str, bytes], str]]
):
    for repository, (contents, found) in strangers.items():
        (line,) = pushed[repository]
        assert line.startswith(f"refused: {repository} contains "), line
        assert found in line and "name another repository" in line and "NEW LINE" not in line
        assert hub.files(repository).items() >= contents.items() and len(hub.repositories[repository].commits) == 2


def test_what_an_earlier_version_left_behind_goes_away(hub: HubServer, pushed: dict[str, list[str]], assembled: Path):
    there = {path.relative_to(assembled).as_posix() for path in assembled.rglob("*") if path.is_file()}
    for repository in ("org/older", "org/fresh"):
        assert pushed[repository] == [f"{hub.endpoint}/{repository}"]
        assert hub.files(repository).keys() == there | {".gitattributes"}


def test_a_card_the_hub_refuses_leaves_no_repository_behind(hub: HubServer, pushed: dict[str, list[str]]):
    (said,) = pushed["org/licence"]
    assert said.startswith("refused: ") and '"license" must be one of [apache-2.0, ' in said and "NEW LINE" not in said
    assert "--license" in said and "hf auth login" not in said
    assert "org/licence" not in hub.repositories


def test_a_hub_that_does_not_answer_is_one_line(assembled: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(EngagementInputError, match="push again") as refusal:
        push_folder(assembled, "org/engagement", token=WRITE_TOKEN)
    assert "\n" not in str(refusal.value)
    assert "hf auth login" not in str(refusal.value)


def _close_client() -> None:
    """As it fails for one file when another file's connection broke off."""
    error = RuntimeError("Cannot send a request, as the client has been closed.")
    raise RuntimeError("Error while uploading 'figures/test_confusion.png' to the Hub.") from error


def _is_offline() -> None:
    raise OfflineModeIsEnabled("Cannot reach http://hub: offline mode is enabled. To disable it, unset HF_HUB_OFFLINE.")


@pytest.mark.parametrize(
    ("fail", "reason", "advice"),
    [
        (_close_client, "(the connection broke off)", "so push again"),
        (_is_offline, "offline mode is enabled", "unset HF_HUB_OFFLINE and push again"),
    ],
)
def test_a_failed_upload_names_its_cause_and_what_helps(
    fail: Callable[[], None], reason: str, advice: str, assembled: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.RepoCard.validate", lambda *_: fail())
    with pytest.raises(EngagementInputError) as refusal:
        push_folder(assembled, "org/engagement", token=WRITE_TOKEN)
    assert reason in str(refusal.value) and advice in str(refusal.value)
    assert "hf auth login" not in str(refusal.value) and "\n" not in str(refusal.value)
    assert str(refusal.value).count("HF_HUB_OFFLINE") == advice.count("HF_HUB_OFFLINE")
