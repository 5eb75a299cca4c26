"""Options of a stage that say which data, how a raw source is read, and how frames become pixels."""

from dataclasses import dataclass, field


@dataclass
class DataArguments:
    """What a stage learns from."""

    data: str | None = field(
        default=None,
        metadata={
            "help": "a prepared data set, here or on the Hub (hf://org/name), or a raw source; without it, or with "
            "none, no such stage"
        },
    )
    data_kind: str | None = field(
        default=None,
        metadata={
            "help": "raw source: daisee, engagenet, fer2013, affectnet, rafdb, images, videos or reference-h5 "
            "(default: what it looks like)"
        },
    )
    subset: str | None = field(
        default=None, metadata={"help": "raw DAiSEE: stratified, the published subset (default: all clips)"}
    )
    subject_pattern: str | None = field(
        default=None,
        metadata={"help": "raw folders: regex that finds the person in a file's path (default: people are unknown)"},
    )
    no_subjects: bool = field(
        default=False, metadata={"help": "raw tables: nobody knows the people; the results say so"}
    )
    pictures_as: str | None = field(
        default=None,
        metadata={
            "help": "raw pictures: pictures, or clips of frames in order (default: clips for a video model where a "
            "table has a frame_index, else pictures)"
        },
    )
    window_label: str | None = field(
        default=None,
        metadata={"help": "clips of pictures: majority, mean or last of the frames' labels (default: majority)"},
    )
    votes: str | None = field(default=None, metadata={"help": "raw FER2013: a CSV table of FER+ votes (default: none)"})
    vote_labels: str | None = field(
        default=None, metadata={"help": "with votes: soft labels, or the majority's (default: soft)"}
    )
    drop_conflicts: bool = field(
        default=False, metadata={"help": "raw source: leave out identical pictures with different labels"}
    )
    label_scheme: str | None = field(
        default=None,
        metadata={
            "help": "own, or for data rated as DAiSEE is: binary, three-class, levels or affects (default: own where "
            "the data has label names, else binary)"
        },
    )
    oversample_to: int | None = field(
        default=None, metadata={"help": "training rows a class is drawn up to (default: every row once)"}
    )
    folds: int | str | None = field(
        default=None,
        metadata={
            "help": "stage two: deal all people of the data into so many folds, train as often, test each person once "
            "and pool the scores; subject: a fold a person (default: train once, on the data's own split)"
        },
    )
    allow_leakage: bool = field(
        default=False, metadata={"help": "train although the audit failed or is missing; the results say so"}
    )
    cache_dir: str = field(default="runs/cache", metadata={"help": "where prepared raw sources are kept"})
    num_preparation_processes: int | None = field(
        default=None, metadata={"help": "raw source: processes that prepare it (default: one per processor)"}
    )


@dataclass
class FrameArguments:
    """From videos to pixels; windows and crops of prepared data stay as prepared."""

    num_frames: int | None = field(default=None, metadata={"help": "videos: frames of a window (default: 8)"})
    sampling: str | None = field(
        default=None,
        metadata={"help": "videos: uniform (over the clip) or consecutive frames (default: uniform)"},
    )
    window_stride_frames: int | None = field(
        default=None,
        metadata={"help": "videos, sampling consecutive: a window begins every so many frames (default: 16)"},
    )
    image_size: int | None = field(
        default=None,
        metadata={
            "help": "pixels on each side of the model's input (default: what the encoder was made for, or 112 where it "
            "takes any)"
        },
    )
    face_crop: bool | None = field(
        default=None,
        metadata={
            "help": "False: whole frames, as the CNN + LSTM reference (default: True for videos, False for pictures)"
        },
    )
    face_crop_size_px: int | None = field(
        default=None, metadata={"help": "pixels at which crops are made, cached and served (default: 224)"}
    )
    as_played: bool | None = field(
        default=None, metadata={"help": "False: videos as they are stored, not as a player shows them (default: True)"}
    )
    grayscale: bool = field(default=False, metadata={"help": "the model sees one grey channel"})
    picture_norm: float | None = field(
        default=None,
        metadata={
            "help": "norm that each picture is scaled to, its mean taken away: 100 in Nezami et al. (default: neither)"
        },
    )
    image_mean: str | None = field(
        default=None, metadata={"help": "JSON list, or train: the training pictures' own (default: ImageNet's)"}
    )
    image_std: str | None = field(
        default=None, metadata={"help": "JSON list, or train: the training pictures' own (default: ImageNet's)"}
    )
    augmentation: str = field(
        default="{}",
        metadata={
            "help": "JSON, name to strength, of training frames; names: flip, rotation_deg, shift, zoom, brightness, "
            "contrast, saturation, erasing, padding_px, crop_area"
        },
    )
    shuffle_frames: bool = field(
        default=False,
        metadata={
            "help": "stage two, clips: frames of every clip in random order, in training and when measured after it; a "
            "control for experiments: what is left without order (`engagement evaluate` keeps the order)"
        },
    )
