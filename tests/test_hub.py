"""To the Hub and back: the real client pushes an export to a server that speaks the Hub's protocol, and a stranger's
machine (no package of ours, an empty home) runs the three lines of the card against it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import TrainedStages
from hub_server import LFS_SUFFIXES, READ_TOKEN, WRITE_TOKEN, HubServer, running
from huggingface_hub import HfApi
from test_export import ELSEWHERE
from transformers import AutoVideoProcessor

from engagement_recognition import EngagementForVideoClassification
from engagement_recognition.processor.input_errors import EngagementInputError
from engagement_recognition.publish import assemble, push_folder

# Arguments: a folder, then a list of (repository, token, private). Prints the address or the error of each push.
PUSH = """
import json, sys
from pathlib import Path
from engagement_recognition.processor.input_errors import EngagementInputError
from engagement_recognition.publish import push_folder

for repository, token, private in json.loads(sys.argv[2]):
    try:
        print(push_folder(Path(sys.argv[1]), repository, private, token))
    except EngagementInputError as error:
        print(f"refused: {error}".replace("\\n", " NEW LINE "))
    except Exception as error:
        print(f"crashed: {type(error).__name__} {error}".replace("\\n", " "))
"""
# The head of test_export's script makes this process one that has none of our packages.
THREE_LINES = (
    ELSEWHERE.partition("\nimport torch")[0]
    + """
import time
started = time.perf_counter()
from transformers import pipeline
classifier = pipeline("video-classification", model="org/private", trust_remote_code=True)
scores = classifier(sys.argv[1])
seconds = time.perf_counter() - started

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import RepositoryNotFoundError
from transformers import AutoVideoProcessor
processor = AutoVideoProcessor.from_pretrained("org/private", trust_remote_code=True)
with torch.inference_mode():
    logits = classifier.model(**processor(sys.argv[1])).logits[0].tolist()
try:
    hf_hub_download("org/private", "README.md", token=False)
    anyone = "reads it"
except RepositoryNotFoundError:
    anyone = "finds none"
print(json.dumps({"scores": scores, "logits": logits, "seconds": seconds, "anyone": anyone}))
"""
)


def run_python(script: str, *arguments: object, **environment: str) -> str:
    """What a process of its own printed; the environment's proxies and tokens do not reach it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, "-P", "-c", script, *map(str, arguments)]
    done = subprocess.run(
        command, env=inherited | environment, cwd=environment["HF_HOME"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def lfs_files(assembled: Path) -> int:
    """How many of the files go through LFS."""
    return sum(path.suffix in LFS_SUFFIXES for path in assembled.rglob("*"))


@pytest.fixture(scope="module")
def hub(lfs_files: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    # Requests about a repository: preupload, LFS batch, then a PUT and a verification a file, then the commit.
    breaks = {"preupload": 1, "first-put": 3, "last-verify": 2 + 2 * lfs_files, "commit": 3 + 2 * lfs_files}
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
def pushed(hub: HubServer, assembled: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What each push said, by repository and token, in order."""
    pushes = [("org/public", WRITE_TOKEN, None), ("org/private", WRITE_TOKEN, True), ("org/public", WRITE_TOKEN, None)]
    pushes += [("org/refused", token, None) for token in ("hf_unknown", READ_TOKEN)]
    pushes += [("org/public", WRITE_TOKEN, True)]
    pushes += [(repository, WRITE_TOKEN, None) for repository in hub.fail_at for _ in range(2)]
    home = tmp_path_factory.mktemp("home")
    said = run_python(PUSH, assembled, json.dumps(pushes), **hub.environment(home)).splitlines()
    return {repository: [line for line, (name, *_) in zip(said, pushes, strict=True) if name == repository]
            for repository, *_ in pushes}  # fmt: skip


@pytest.fixture(scope="module")
def video(drawn_daisee: Path) -> Path:
    return next(path for path in sorted(drawn_daisee.glob("DataSet/Test/*/*/*")))


@pytest.fixture(scope="module")
def said_elsewhere(
    hub: HubServer, pushed: dict[str, list[str]], video: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict:
    """The three lines of the card on the private repository, with a token that may read it."""
    hub.requests.clear()
    hub.cut_next_download = True
    home = tmp_path_factory.mktemp("stranger")
    return json.loads(run_python(THREE_LINES, video, **hub.environment(home, READ_TOKEN)).splitlines()[-1])


def test_the_three_lines_say_the_same_from_the_hub(said_elsewhere: dict, trained: TrainedStages, video: Path):
    model = EngagementForVideoClassification.from_pretrained(trained.engagement).eval()
    with torch.inference_mode():
        expected = model(**AutoVideoProcessor.from_pretrained(trained.engagement)(str(video))).logits[0]
    difference = np.abs(np.array(said_elsewhere["logits"]) - expected.numpy()).max()
    print(f"logits differ by {difference:.2g}; the three lines took {said_elsewhere['seconds']:.1f} s")
    assert difference <= 1e-6
    scores = {model.config.id2label[i]: float(score) for i, score in enumerate(expected.softmax(dim=0))}
    assert {row["label"]: row["score"] for row in said_elsewhere["scores"]} == pytest.approx(scores, abs=1e-6)


def test_a_private_model_is_read_with_a_token_only(said_elsewhere: dict, hub: HubServer):
    assert hub.repositories["org/private"].private and not hub.repositories["org/public"].private
    assert said_elsewhere["anyone"] == "finds none"
    storage = [request for request in hub.requests if request.host == "localhost"]
    assert storage and {request.token for request in storage} == {None}  # the token stays with the Hub


def test_a_cut_download_is_asked_for_again(said_elsewhere: dict, hub: HubServer):
    assert [request.method for request in hub.requests if request.host == "localhost"] == ["GET", "GET"]


def test_the_weights_header_alone_can_be_read(pushed: dict[str, list[str]], hub: HubServer, trained: TrainedStages):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        metadata = HfApi(hub.endpoint).get_safetensors_metadata("org/public")
    model = EngagementForVideoClassification.from_pretrained(trained.engagement)
    assert sum(metadata.parameter_count.values()) == sum(weight.numel() for weight in model.state_dict().values())
    assert hub.requests[-1].range.startswith("bytes=0-")


def test_the_server_knows_all_that_clients_ask_for(said_elsewhere: dict, hub: HubServer):
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


def test_training_pushes_each_stage_s_export(hub: HubServer, tiny_recipe: dict[str, object], tmp_path: Path):
    recipe = {**tiny_recipe, "output_dir": str(tmp_path / "run"), "num_train_epochs": 1}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    ids = {"expression": "org/faces", "engagement": "org/clips"}
    targets = [part for stage, name in ids.items() for part in (f"--{stage}_hub_model_id", name)]
    program = "import sys; from engagement_recognition.train import main; sys.exit(main(sys.argv[1:]))"
    printed = run_python(
        program, tmp_path / "recipe.yaml", "--push_to_hub", "true", *targets, **hub.environment(tmp_path, WRITE_TOKEN)
    )
    for stage, repository in ids.items():
        assert f"pushed to {hub.endpoint}/{repository}" in printed
        files = hub.files(repository)
        assert files["model.safetensors"] == (tmp_path / "run" / stage / "model.safetensors").read_bytes()
        assert f'model="{repository}"' in files["README.md"].decode()
        assert not [name for name in files if name.endswith((".bin", ".pt", ".parquet"))]


def test_a_push_without_changes_adds_no_commit(pushed: dict[str, list[str]], hub: HubServer):
    assert pushed["org/public"][:2] == [f"{hub.endpoint}/org/public"] * 2
    assert len(hub.repositories["org/public"].commits) == 2  # the repository's first, and the model


def test_what_shall_be_private_is_not_pushed_to_a_public_repository(pushed: dict[str, list[str]]):
    assert re.match(r"refused: .* private .* public", pushed["org/public"][2])


def test_an_interrupted_push_leaves_nothing_half_done_and_can_be_repeated(pushed: dict[str, list[str]], hub: HubServer):
    repositories = [name for name in pushed if "break" in name]
    assert len(repositories) == 4 and hub.fail_at == {}  # each was interrupted
    for repository in repositories:
        first, second = pushed[repository]
        assert first.startswith("refused: ") and "No space left on this Hub" in first and "push again" in first
        assert "NEW LINE" not in first
        assert second == f"{hub.endpoint}/{repository}"
        assert len(hub.repositories[repository].commits) == 2
        assert hub.files(repository) == hub.files("org/public")


def test_a_refused_token_is_one_line(pushed: dict[str, list[str]], hub: HubServer):
    unknown, read_only = pushed["org/refused"]
    assert "Invalid credentials" in unknown and "write token" in read_only
    for line in (unknown, read_only):
        assert line.startswith("refused: ") and "hf auth login" in line and "NEW LINE" not in line
        assert "hf_unknown" not in line and READ_TOKEN not in line
    assert "org/refused" not in hub.repositories


def test_a_hub_that_does_not_answer_is_one_line(assembled: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(EngagementInputError, match="push again") as refusal:
        push_folder(assembled, "org/engagement", token=WRITE_TOKEN)
    assert "\n" not in str(refusal.value)
