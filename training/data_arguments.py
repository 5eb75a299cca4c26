"""Options of a stage for its data: which data, how a raw source is read, and how frames become pixels."""

from dataclasses import dataclass, field


@dataclass
class DataArguments:
    """The data that a stage is trained on."""

    data: str | None = field(
        default=None,
        metadata={
            "help": "a prepared data set, local or on the Hub (hf://org/name), or a raw source; if left out, or set to "
            "none, the stage is skipped"
        },
    )
    data_kind: str | None = field(
        default=None,
        metadata={
            "help": "raw source: daisee, engagenet, fer2013, affectnet, rafdb, images, videos or reference-h5 "
            "(default: recognised by its files)"
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
        default=False, metadata={"help": "raw tables: the people are unknown; this is recorded in the results"}
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
            "help": "own, or for data with DAiSEE's ratings: binary, three-class, levels or affects (default: own if "
            "the data has label names, else binary)"
        },
    )
    oversample_to: int | None = field(
        default=None, metadata={"help": "rows per class in training, by repeating rows (default: every row once)"}
    )
    folds: int | str | None = field(
        default=None,
        metadata={
            "help": "stage two: number of folds that all people are divided into; one training per fold, each person "
            "is tested once, and the scores are pooled; subject: one fold per person (default: one training, on the "
            "data's own split)"
        },
    )
    allow_leakage: bool = field(
        default=False,
        metadata={"help": "train although the audit failed or is missing; this is recorded in the results"},
    )
    cache_dir: str = field(default="runs/cache", metadata={"help": "folder where prepared raw sources are stored"})
    num_preparation_processes: int | None = field(
        default=None, metadata={"help": "raw source: processes that prepare it (default: one per processor)"}
    )


@dataclass
class FrameArguments:
    """From videos to pixels; windows and crops of prepared data stay as prepared."""

    num_frames: int | None = field(default=None, metadata={"help": "videos: frames per window (default: 8)"})
    sampling: str | None = field(
        default=None,
        metadata={"help": "videos: uniform (over the clip) or consecutive frames (default: uniform)"},
    )
    window_stride_frames: int | None = field(
        default=None,
        metadata={"help": "videos, sampling consecutive: frames from one window's start to the next (default: 16)"},
    )
    image_size: int | None = field(
        default=None,
        metadata={
            "help": "height and width of the model's input in pixels (default: the encoder's own size, or 112 if it "
            "accepts any)"
        },
    )
    face_crop: bool | None = field(
        default=None,
        metadata={
            "help": "False: whole frames, as in the CNN + LSTM study (default: True for videos, False for pictures)"
        },
    )
    face_crop_size_px: int | None = field(
        default=None,
        metadata={"help": "height and width in pixels at which crops are made, cached and served (default: 224)"},
    )
    as_played: bool | None = field(
        default=None, metadata={"help": "False: videos as stored, not as a player shows them (default: True)"}
    )
    grayscale: bool = field(default=False, metadata={"help": "the model sees one grey channel"})
    picture_norm: float | None = field(
        default=None,
        metadata={
            "help": "subtract each picture's mean and scale it to this norm: 100 in Nezami et al. (default: neither)"
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
            "help": "augmentation of training frames, as JSON from name to strength; names: flip, rotation_deg, shift, "
            "zoom, brightness, contrast, saturation, erasing, padding_px, crop_area"
        },
    )
    shuffle_frames: bool = field(
        default=False,
        metadata={
            "help": "stage two, clips: put the frames of every clip in random order, in training and in the "
            "measurement after it; a control experiment: what is left without order (`engagement evaluate` keeps the "
            "order)"
        },
    )
