"""What gives a label away besides the face: the recording, the person, colour and light, or a copy with another
label."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from scipy.stats import mannwhitneyu
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from ..preparation.picture_codec import decode_small
from .duplicates import Duplicate
from .rows import AuditRows, to_codes
from .verdicts import FAIL, OK, PREDICTS_LABEL, REPORT, Detail, Finding, number_of

CLASS_SHARE = 0.9  # of a class's clips; the fewest recordings that contain this share are counted
FEWEST_CLIPS = 5  # needed to judge a class
HIGH_GAIN = 0.2  # in macro-F1, over always saying the most frequent label
HIGH_SHARE = 0.5  # of the clips; a giveaway on fewer hardly affects a score
HIGH_AUROC = 0.6  # colour or brightness alone, one class against the rest
LARGEST_P = 0.001  # probability that this is chance (Mann-Whitney)
COLOUR_LEVELS = 4.0  # of 255: mean difference between the channels above which a picture counts as colour
_GROUPS_LISTED = 50
_ROWS_AT_ONCE = 256


def judge_classes(rows: AuditRows, groups: np.ndarray) -> Finding:
    """A class that comes from one recording is learned as that recording's room, light and clothes."""
    group_of_label: dict[str, Counter[int]] = defaultdict(Counter)
    for row, label in _one_row_a_clip(rows).items():
        group_of_label[label][int(groups[row])] += 1
    lives_in = {label: _fewest(counts) for label, counts in sorted(group_of_label.items())}
    clips = {label: counts.total() for label, counts in group_of_label.items()}
    few = [label for label in lives_in if clips[label] < FEWEST_CLIPS]
    alone, pairs = ([x for x, n in lives_in.items() if n == wanted and x not in few] for wanted in (1, 2))
    details = {"recordings_holding_90_percent": lives_in, "clips": {label: clips[label] for label in lives_in}}
    told = []
    if alone:
        told.append(f"{number_of(alone, 'class comes', 'classes come')} from one recording: {', '.join(alone)}")
    if pairs:
        told.append(f"{number_of(pairs, 'class comes', 'classes come')} from two recordings: {', '.join(pairs)}")
    if few:
        told.append(f"{number_of(few, 'class has', 'classes have')} too few clips to judge: {', '.join(few)}")
    if not told:
        return Finding("one-recording classes", OK, "Every class is spread over three recordings or more.", details)
    summary = "; ".join(told)
    return Finding("one-recording classes", FAIL if alone else REPORT, summary[0].upper() + summary[1:] + ".", details)


def _fewest(counts: Counter[int]) -> int:
    """How many groups, the largest first, contain most of the class."""
    held = np.cumsum(sorted(counts.values(), reverse=True))
    return int(np.searchsorted(held, CLASS_SHARE * held[-1] - 1e-9)) + 1


def find_conflicts(rows: AuditRows, duplicates: Iterable[Duplicate]) -> Finding:
    """Identical pictures with different labels: at most one of them is right."""
    same: dict[str, list[int]] = defaultdict(list)
    for row, pixels in enumerate(rows.frames_sha256):
        if rows.label[row] is not None:
            same[pixels].append(row)
    groups = [members for members in same.values() if len({rows.label[row] for row in members}) > 1]
    near = sum(rows.label[item.row] != rows.label[item.other] for item in duplicates if not item.identical)
    described = [[f"{rows.name(row)} ({rows.split[row]}): {rows.label[row]}" for row in group] for group in groups]
    details: dict[str, Detail] = {
        "groups": described[:_GROUPS_LISTED],
        "num_groups": len(groups),
        "num_near_identical_pairs": near,
    }
    if not groups and not near:
        return Finding("label conflicts", OK, "Identical pictures have the same label.", details)
    told = f"Identical pictures with different labels: {number_of(groups, 'group')}"
    if groups:
        told += f", such as {'; '.join(described[0][:2])}"
    told += f"; nearly identical ones across splits: {number_of(range(near), 'pair')}" if near else ""
    return Finding("label conflicts", REPORT, f"{told}.", details)


def judge_giveaway(rows: AuditRows, keys: Sequence[Hashable | None], what: str) -> Finding:
    """How well the other clips of the same subject (or recording) predict a clip's label, without looking at it."""
    name = f"{what} {PREDICTS_LABEL}"
    labels = _one_row_a_clip(rows)
    chosen = [row for row in labels if keys[row] is not None]
    groups = to_codes([str(keys[row]) for row in chosen])
    # A clip without others of its group cannot be predicted from them.
    has_others = np.bincount(groups)[groups] > 1 if chosen else np.zeros(0, bool)
    truth = to_codes([labels[row] for row in chosen])[has_others]
    share = has_others.sum() / max(1, len(labels))
    details: dict[str, Detail] = {"clips": len(truth), "share_of_clips": round(float(share), 4)}
    if len(np.unique(truth)) < 2:
        return Finding(name, OK, f"Cannot be determined: too few clips share a known {what}.", details)
    by_others = _score(truth, _guess_by_others(truth, groups[has_others]))
    by_majority = _score(truth, np.full(len(truth), np.bincount(truth).argmax()))
    details |= {"alone": by_others, "majority": by_majority}
    alone, majority = by_others["macro_f1"], by_majority["macro_f1"]
    told = f"macro-F1 {alone:.3f} against {majority:.3f} for the majority, on the {share:.0%} of clips that share one"
    if alone - majority < HIGH_GAIN:
        return Finding(name, OK, f"The {what} alone says little about the label: {told}.", details)
    if share < HIGH_SHARE:
        return Finding(name, OK, f"The {what} gives few labels away: {told}.", details)
    summary = f"The {what} alone gives the label away: {told}; a model can score by recognising the {what}."
    return Finding(name, REPORT, summary, details)


def judge_looks(rows: AuditRows) -> tuple[Finding, Finding]:
    """How well colour (the share of a window's frames that are not grey) and mean brightness alone predict a label."""
    labels = _one_row_a_clip(rows)
    chosen = list(labels)
    looks = [
        _look(frames)
        for start in range(0, len(chosen), _ROWS_AT_ONCE)
        for frames in rows.frames[chosen[start : start + _ROWS_AT_ONCE]]["frames"]
    ]
    in_colour, brightness = np.array(looks).reshape(-1, 2).T
    found = np.array(list(labels.values()))
    if in_colour.all() or not in_colour.any():
        told = f"All pictures are {'in colour' if in_colour.any() else 'grey'}."
        return Finding(f"colour {PREDICTS_LABEL}", OK, told, {}), _judge_look("brightness", brightness, found, ".0f")
    return _judge_look("colour", in_colour, found, ".0%"), _judge_look("brightness", brightness, found, ".0f")


def _look(frames: Sequence[bytes]) -> tuple[float, float]:
    """Share of the frames that are in colour, and their mean brightness."""
    pictures = [decode_small(content).astype(np.int16) for content in frames]
    colours = [np.ptp(picture, axis=2).mean() > COLOUR_LEVELS for picture in pictures]
    return float(np.mean(colours)), float(np.mean([picture.mean() for picture in pictures]))


def _judge_look(what: str, values: np.ndarray, labels: np.ndarray, form: str) -> Finding:
    """Compares each class that has enough clips with the rest; the class that is predicted best is named.

    Args:
        form: format of the values in the summary.
    """
    name = f"{what} {PREDICTS_LABEL}"
    names, counts = np.unique(labels, return_counts=True)
    judged = [label for label, count in zip(names, counts, strict=True) if FEWEST_CLIPS <= count < len(labels)]
    if not judged:
        return Finding(name, OK, f"Cannot be determined: no class has {FEWEST_CLIPS} clips to compare.", {})
    aurocs = {str(label): round(float(roc_auc_score(labels == label, values)), 4) for label in judged}
    best = max(aurocs, key=lambda label: abs(aurocs[label] - 0.5))
    is_best = labels == best
    p = float(mannwhitneyu(values[is_best], values[~is_best]).pvalue)
    details: dict[str, Detail] = {
        "auroc": aurocs,
        "means": {str(label): round(float(values[labels == label].mean()), 4) for label in names},
        "p": p,
    }
    auroc = max(aurocs[best], 1 - aurocs[best])
    told = (
        f"AUROC {auroc:.3f} for {best} ({what} {values[is_best].mean():{form}} on average, "
        f"{values[~is_best].mean():{form}} of the others)"
    )
    if auroc < HIGH_AUROC or p > LARGEST_P:
        return Finding(name, OK, f"The {what} alone says little about the label: {told}.", details)
    summary = f"The {what} alone gives labels away: {told}; a model can score without looking at the face."
    return Finding(name, REPORT, summary, details)


def _one_row_a_clip(rows: AuditRows) -> dict[int, str]:
    """Row of each clip's first labelled window → its label; the other windows share it and are no further evidence."""
    first: dict[str, tuple[int, str]] = {}
    for row, (clip_id, label) in enumerate(zip(rows.clip_id, rows.label, strict=True)):
        if label is not None:
            first.setdefault(clip_id, (row, label))
    return dict(first.values())


def _guess_by_others(truth: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The most frequent label among the other clips of the same group: (clips,)."""
    counts = np.zeros((groups.max() + 1, truth.max() + 1))
    np.add.at(counts, (groups, truth), 1)
    others = counts[groups]
    others[np.arange(len(truth)), truth] -= 1
    overall = np.bincount(truth, minlength=counts.shape[1]) / len(truth)
    return (others + 0.5 * overall).argmax(1)  # less than one vote: only breaks ties


def _score(truth: np.ndarray, guessed: np.ndarray) -> dict[str, float]:
    return {
        "macro_f1": round(float(f1_score(truth, guessed, average="macro")), 4),
        "balanced_accuracy": round(float(balanced_accuracy_score(truth, guessed)), 4),
    }
