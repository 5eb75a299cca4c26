"""The card of a model whose pictures are faces already: its lines, run on a stranger's machine, say what ours say."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import TrainedStages
from huggingface_hub import ModelCard
from PIL import Image

from engagement_recognition.data.drawn.faces import FacePose, draw_frame, draw_subject
from engagement_recognition.hub.model_files import EXAMPLE_PICTURE
from engagement_recognition.hub.publish import assemble
from engagement_recognition.inference.predictor import Predictor


@pytest.fixture(scope="module")
def published(trained: TrainedStages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stage one's model as it goes to the Hub."""
    folder = tmp_path_factory.mktemp("published") / "expression_hub"
    assemble(trained.expression, folder, "org/faces")
    return folder


def approx_first(scores: dict[str, float]) -> object:
    """The five highest, which are as many as the pipeline tells."""
    names = sorted(scores, key=scores.__getitem__, reverse=True)[:5]
    return pytest.approx({name: scores[name] for name in names}, abs=1e-6)


def test_its_lines_say_what_predict_says(
    published: Path, trained: TrainedStages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    card = ModelCard.load(published / "README.md").text
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(blocks) == 2 and 'classify("face_crop.jpg")' in blocks[0] and 'prepare_faces("photo.jpg")' in blocks[1]
    photo = np.hstack([draw_frame(draw_subject(i), FacePose()) for i in (0, 1)])
    Image.fromarray(photo).save(tmp_path / "photo.jpg", quality=95)
    shutil.copy(published / EXAMPLE_PICTURE, tmp_path / "face_crop.jpg")  # what it is, is in its head
    # That a model loads from the Hub, in a process without this package, is test_export's to show.
    monkeypatch.chdir(tmp_path)
    said: list[list[dict[str, object]]] = []
    names = {"print": said.append}
    for block in blocks:
        exec(block.replace("org/faces", str(published)), names)
    said.insert(0, names["classify"]("face_crop.jpg"))
    alone, *of_photo = [{row["label"]: row["score"] for row in rows} for rows in said]

    predictor = Predictor.from_pretrained(str(trained.expression))
    expected = predictor.predict_photo(tmp_path / "photo.jpg").faces
    assert len(of_photo) == len(expected) == 2
    for scores, face in zip(of_photo, expected, strict=True):
        assert scores == approx_first(face.scores)
    # The example is one face, so that the pipeline and `engagement predict` agree on the person it was drawn from.
    Image.fromarray(draw_frame(draw_subject(0), FacePose())).save(tmp_path / "person.png")
    (person,) = predictor.predict_photo(tmp_path / "person.png").faces
    assert alone == approx_first(person.scores)


def test_it_warns_of_whole_photos(published: Path, trained: TrainedStages):
    for card in (published / "README.md", trained.expression / "README.md"):
        text = " ".join(ModelCard.load(card).text.split())
        assert "needs **an image of only a face**" in text and "a label, which means nothing" in text
        assert ("handler.py" in text) == (card.parent == published)
    assert "`engagement predict photo.jpg --model org/faces`" in ModelCard.load(published / "README.md").text


@pytest.mark.parametrize("settings", [{"face_crop": True}, {"pictures_are_frames": True}])
def test_a_model_of_whole_pictures_has_no_such_warning(settings: dict, trained: TrainedStages, tmp_path: Path):
    folder = Path(shutil.copytree(trained.expression, tmp_path / "expression"))
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    assemble(folder, tmp_path / "hub", "org/faces")
    card = ModelCard.load(tmp_path / "hub/README.md").text
    assert 'classify("face.jpg")' in card and "only a face" not in card and "prepare_faces" not in card
    whole = draw_frame(draw_subject(0), FacePose())
    assert np.array_equal(np.asarray(Image.open(tmp_path / "hub" / EXAMPLE_PICTURE)), whole)
