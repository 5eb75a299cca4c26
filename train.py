"""Train in two stages: facial expressions first, engagement second. Either stage alone works.

    python train.py demo
    python train.py my_recipe.yaml --expression_data fer2013/
    accelerate launch train.py demo --engagement_learning_rate 1e-4

Options are those of `StageArguments` and of transformers' TrainingArguments; `--help` explains each. Each stage writes
one export folder, `OUTPUT_DIR/expression` or `OUTPUT_DIR/engagement`: weights, config, processor, code, measured
results and a card.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, set_seed

from engagement_recognition import register_auto_classes
from engagement_recognition.data.required_packages import require_packages
from engagement_recognition.evaluation.engagement_metric import EngagementMetric
from engagement_recognition.evaluation.fold_runs import (
    FoldedStage,
    load_folds,
    start_of_fold,
    start_to_check,
    time_left,
)
from engagement_recognition.evaluation.pooled_folds import pool_folds, pooled_results, write_pooled
from engagement_recognition.evaluation.results_file import RESULTS_FILE, read_results
from engagement_recognition.evaluation.results_schema import Measurement, Results, Selection, Training
from engagement_recognition.evaluation.split_evaluation import (
    SplitPredictions,
    count_labels,
    describe_environment,
    describe_scores,
    evaluate_split,
)
from engagement_recognition.hub.export_folder import export_model
from engagement_recognition.hub.publish import assemble, require_hub_names
from engagement_recognition.hub.push import push_folder
from engagement_recognition.inference.loading import without_file_bars
from engagement_recognition.inference.model_source import check_encoder, check_encoder_weights
from engagement_recognition.inference.shipped_model import resolve_start
from engagement_recognition.modeling_engagement import (
    EngagementForImageClassification,
    EngagementForVideoClassification,
    EngagementPreTrainedModel,
)
from engagement_recognition.processor.input_errors import EngagementInputError, ModelLoadError, RecipeError, in_one_line
from engagement_recognition.processor.video_processing_engagement import EngagementVideoProcessor
from engagement_recognition.training.arguments import Recipe, StageArguments, StageRun, plan_stages, read_recipe
from engagement_recognition.training.augmentation import Augmentation
from engagement_recognition.training.checkpoints import choose_checkpoint, find_checkpoint, give_to_one_stage
from engagement_recognition.training.command_line import parse_command_line
from engagement_recognition.training.event_files import keep_events_in_run
from engagement_recognition.training.failures import failures_in_one_line, trained_already
from engagement_recognition.training.free_cores import free_cores
from engagement_recognition.training.frozen_features import frames_or_features
from engagement_recognition.training.interruptions import (
    exit_code,
    how_to_go_on,
    noting_what_is_kept,
    sigterm_interrupts,
)
from engagement_recognition.training.lora import add_adapters, check_lora, merge_adapters
from engagement_recognition.training.mixing import Mixing
from engagement_recognition.training.option_checks import check_options_alone
from engagement_recognition.training.processes import by_the_first, use_one_gpu
from engagement_recognition.training.progress import tell_epochs
from engagement_recognition.training.run_folders import alone_in_folders
from engagement_recognition.training.run_record import TrainingRecipe, describe_training, recipe_as_given
from engagement_recognition.training.selection import choose_score, full_name
from engagement_recognition.training.stage_data import StageData, load_stage_data, parse_json
from engagement_recognition.training.stage_loss import build_adversary, build_stage_loss
from engagement_recognition.training.trainer import EngagementTrainer
from engagement_recognition.training.training_sets import FrameCollator, LabelledFrames


def main(argv: Sequence[str] | None = None) -> int:
    """Run a recipe; returns the exit code. An error in the input gives one line on stderr and exit code 2; Ctrl-C and
    SIGTERM give one line with the command that resumes, and exit codes 130 and 143."""
    with sigterm_interrupts():
        try:
            require_packages()
            recipe_path, options = parse_command_line(argv)
            train(read_recipe(recipe_path) if recipe_path else Recipe({}), options)
        except EngagementInputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as stop:
            if os.environ.get("RANK", "0") == "0":  # only one of several processes prints it
                print(how_to_go_on(stop, argv), file=sys.stderr)
            return exit_code(stop)
    return 0


@without_file_bars()
@failures_in_one_line()
def train(recipe: Recipe, options: Mapping[str, str]) -> list[Path]:
    """Train both stages of a recipe, the second from the first's weights; returns the export folders."""
    register_auto_classes()
    runs = plan_stages(recipe, options)
    # First check both stages for typing errors: preparing and training take hours.
    for run in runs:
        check_options(run)
    _require_own_repositories(runs)
    with ExitStack() as folders:
        by_the_first(runs[0].training, lambda: folders.enter_context(alone_in_folders(runs)))
        give_to_one_stage(runs)
        for run in runs:
            by_the_first(run.training, partial(find_checkpoint, run))
        folders.enter_context(noting_what_is_kept(runs))
        return _train_all(runs)


def _train_all(runs: Sequence[StageRun]) -> list[Path]:
    data = [load_folds(run) if run.stage.folds else load_stage_data(run) for run in runs]
    stage_one_dir = None
    exported = []
    for run, stage_data in zip(runs, data, strict=True):
        if isinstance(stage_data, FoldedStage):
            exported.append(train_in_folds(stage_data, stage_one_dir))
        elif run.name == "expression":
            stage_one_dir = train_on_expressions(run, stage_data)
            exported.append(stage_one_dir)
        else:
            exported.append(train_on_engagement(run, stage_data, stage_one_dir))
    for run in runs:  # after all training, so that an unreachable Hub interrupts none
        if run.push_to_hub and run.training.process_index == 0:
            folder, repository = run.run_dir / f"{run.name}_hub", _repository_of(run)  # as `engagement publish`
            assemble(run.export_dir, folder, repository)
            address = push_folder(folder, repository, run.training.hub_private_repo, run.training.hub_token)
            print(f"pushed to {address}")
    return exported


def check_options(run: StageRun) -> None:
    """Check all options that can be checked before data is prepared.

    Raises:
        RecipeError: an option out of range, an unknown augmentation or selection score, shuffle_frames with single
            faces, LoRA without attention layers, or a push without a repository.
        ModelLoadError: an encoder that does not exist, or unreadable results in the model to start from.
    """
    use_one_gpu(run.training)
    check_options_alone(run)
    if run.push_to_hub:
        require_hub_names(_repository_of(run))
    Augmentation.from_recipe(parse_json(run.stage.augmentation, "augmentation", dict))
    if run.stage.shuffle_frames and run.stage.model == "image":
        raise RecipeError(
            f"shuffle_frames needs clips, and stage {run.name} trains on single faces; leave it out there."
        )
    if run.training.metric_for_best_model:
        full_name(run.training.metric_for_best_model)
    stage, start_from = run.stage, resolve_start(start_to_check(run))
    encoder = start_from or stage.encoder
    stage.image_size = check_encoder(encoder, stage.image_size, 1 if stage.grayscale else 3, stage.encoder_features)
    check_lora(run, encoder)
    if start_from:
        _data_behind(start_from)


def _repository_of(run: StageRun) -> str:
    """The Hub repository that the stage's model is pushed to; raises RecipeError if none was given."""
    if not run.training.hub_model_id:
        raise RecipeError(f"--push_to_hub needs a repository for each stage; pass --{run.name}_hub_model_id org/name.")
    return run.training.hub_model_id


def _require_own_repositories(runs: Sequence[StageRun]) -> None:
    """Raises RecipeError if one stage's model would overwrite the other's on the Hub, which ignores case."""
    pushed = [_repository_of(run) for run in runs if run.push_to_hub]
    if len({name.lower() for name in pushed}) < len(pushed):
        raise RecipeError(
            f"Both stages would be pushed to {pushed[0]}; pass --expression_hub_model_id and --engagement_hub_model_id "
            "with two different names."
        )


def train_on_expressions(run: StageRun, data: StageData) -> Path:
    """Stage one: single faces, facial expressions. Returns the export folder."""
    return _train_stage(run, data, run.stage.start_from)


def train_on_engagement(run: StageRun, data: StageData, stage_one_dir: Path | None) -> Path:
    """Stage two: clips (or single faces), engagement, from stage one's encoder if there is one."""
    return _train_stage(run, data, run.stage.start_from or stage_one_dir)


def train_in_folds(folded: FoldedStage, stage_one_dir: Path | None) -> Path:
    """Train stage two once per fold that is not finished yet; returns the folder of the pooled scores."""
    run, finished, began = folded.run, [], time.monotonic()
    resumes, num_trained = bool(run.training.resume_from_checkpoint), 0
    for fold in range(len(folded)):
        found = folded.finished(fold, recipe_as_given(run)) if resumes else None
        if found is None:
            left = time_left(time.monotonic() - began, num_trained, len(folded) - fold)
            print(f"fold {fold + 1} of {len(folded)}; {left}", flush=True)
            fold_run = folded.run_of(fold)
            start = start_of_fold(run.stage.start_from, fold) or stage_one_dir
            found = read_results(_train_stage(fold_run, folded.data_of(fold), start))
            num_trained += 1
        finished.append(found)
    if run.training.process_index == 0:
        pooled = pool_folds([folded.predictions(fold) for fold in range(len(folded))], finished[0].label_names)
        dealt = folded.dealt
        results = pooled_results(finished, dealt.fingerprint(), dealt.how, pooled.evaluation, dealt.by_subject)
        write_pooled(run.export_dir, results, pooled.predictions)
        print(f"{run.name}: {describe_scores(pooled.evaluation, 'test')}, in folds; see {run.export_dir}")
    return run.export_dir


@contextmanager
def stage_trainer(
    run: StageRun, data: StageData, start: str | Path | None, checkpoint: Path | None, recipe: TrainingRecipe
) -> Iterator[tuple[EngagementTrainer, StageData]]:
    """A stage's trainer, with a new model, loss and random state, and the splits as it reads them: frames, or features
    of a frozen encoder. It will resume from `checkpoint`, and records `recipe` in its own checkpoints."""
    set_seed(run.training.seed)
    augmentation = Augmentation.from_recipe(parse_json(run.stage.augmentation, "augmentation", dict))
    model = build_model(run.stage, data, start)
    add_adapters(model, run)
    with (
        free_cores(run, checkpoint) as cores,
        frames_or_features(model, run, data, augmentation) as (learned, collator),
    ):
        trainer = _build_trainer(run, model, learned, augmentation, collator, recipe)
        if cores is not None:
            trainer.add_callback(cores)
        yield trainer, learned


def _train_stage(run: StageRun, data: StageData, start_from: str | Path | None) -> Path:
    start = resolve_start(start_from)
    results = _describe_run(run, data, start_from)  # before the training, so that invalid values are found early
    recipe = describe_training(run, data.description.fingerprint, data.label_names, start)
    checkpoint = by_the_first(run.training, partial(choose_checkpoint, run, recipe))
    with stage_trainer(run, data, start, checkpoint, recipe) as (trainer, learned):
        outcome = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        trained = trainer.accelerator.unwrap_model(trainer.model)
        merge_adapters(trained, run)  # before measuring: the exported model is the one measured
        validation, test = _predict(trainer, learned.validation, "validation"), _predict(trainer, learned.test, "test")
        environment = describe_environment(run.training.device)
    training = Training(
        seconds=outcome.metrics["train_runtime"],
        log=trainer.finite_log(),
        selection=Selection(**selected._asdict()) if (selected := trainer.selected()) else None,
        features_kept=learned is not data,
        loading_share=trainer.times.loading_share(),
    )
    advice = trainer.times.advice(run.training.dataloader_num_workers)
    if advice and run.training.process_index == 0:
        print(f"{run.name}: {advice}", flush=True)
    results = results.model_copy(update={"training": training, "environment": environment})
    started_in = Path(start or run.stage.encoder)
    by_the_first(run.training, partial(_export, run, data, trained, results, (validation, test), started_in))
    return run.export_dir


def _export(
    run: StageRun, data: StageData, trained: EngagementPreTrainedModel, results: Results,
    predictions: tuple[SplitPredictions, SplitPredictions], started_in: Path,
) -> None:  # fmt: skip
    """Evaluate the trained model, and write its export folder."""
    validation, test = predictions
    evaluation, without_duplicates = evaluate_split(
        test, validation, data.clean_test_rows, data.train.label_ids, data.label_names
    )
    measured = Measurement(
        split="test",
        data=data.description.as_measured(),
        environment=results.environment,
        evaluation=evaluation,
        without_duplicates=without_duplicates,
    )
    results = results.model_copy(update={"measurements": [measured]})
    fingerprint = data.description.fingerprint
    with trained_already(run.export_dir):
        export_model(trained, data.processor, results, run.export_dir, predictions, fingerprint, started_in)
    print(f"{run.name}: {describe_scores(evaluation, 'test')}; see {run.export_dir}")
    selection = results.training.selection if results.training else None
    if selection and selection.warning:
        print(f"{run.name}: take care: {selection.warning}", file=sys.stderr)


def _predict(trainer: EngagementTrainer, rows: LabelledFrames, split: str) -> SplitPredictions:
    found = trainer.predict(rows)
    label_ids, logits = np.asarray(found.label_ids), np.asarray(found.predictions)
    return SplitPredictions(split, rows.keys, rows.subject_ids, label_ids, logits)


def build_model(stage: StageArguments, data: StageData, start_from: str | Path | None) -> EngagementPreTrainedModel:
    """The stage's model before its first step; raises ModelLoadError if its encoder cannot be read."""
    kind = EngagementForVideoClassification if stage.model == "video" else EngagementForImageClassification
    architecture = {
        "image_size": stage.image_size,
        "num_channels": 1 if stage.grayscale else 3,
        "temporal": stage.temporal,
        "normalize_features": stage.normalize_features,
        "temporal_hidden_size": stage.temporal_hidden_size,
        "temporal_num_layers": stage.temporal_num_layers,
        "temporal_positions": stage.temporal_positions,
        "dropout": stage.dropout,
        "test_time_views": stage.test_time_views,
        "id2label": dict(enumerate(data.label_names)),
        "label2id": {name: i for i, name in enumerate(data.label_names)},
    }
    if isinstance(data.processor, EngagementVideoProcessor):
        architecture["num_frames"] = data.processor.num_frames
    if stage.encoder_features:
        architecture["encoder_features"] = stage.encoder_features
    check_encoder_weights(start_from or stage.encoder)
    try:
        model = kind.from_encoder(start_from or stage.encoder, **architecture)
    except (OSError, ValueError, SafetensorError, StrictDataclassError) as error:
        raise ModelLoadError(in_one_line(error)) from error
    if stage.freeze_encoder:
        model.encoder.requires_grad_(False)
    if stage.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-arg] # transformers' wrapper loses `self`
    return model


def _build_trainer(
    run: StageRun,
    model: EngagementPreTrainedModel,
    data: StageData,
    augmentation: Augmentation,
    collator: type[FrameCollator] = FrameCollator,
    recipe: TrainingRecipe | None = None,
) -> EngagementTrainer:
    single_face = isinstance(model, EngagementForImageClassification)
    patience, score = run.stage.early_stopping_patience, run.training.metric_for_best_model
    shuffle = run.stage.shuffle_frames
    if score:
        score = choose_score(score, data.train.label_ids, data.validation.label_ids, data.label_names)
        run.training.metric_for_best_model = score
    trainer = EngagementTrainer(
        model=model,
        args=run.training,
        train_dataset=data.train,
        eval_dataset=data.validation,
        loss=build_stage_loss(run.stage, data),
        subject_adversary=build_adversary(run.stage, data, model),
        optimizer_name=run.stage.optimizer,
        lr_decay=(run.stage.lr_decay_factor, run.stage.lr_decay_steps) if run.stage.lr_decay_factor else None,
        mixing=Mixing(run.stage.cutmix, run.stage.mixup),
        average_decay=run.stage.average_decay,
        recipe=recipe,
        train_collator=collator(
            data.processor, single_face, augmentation, run.stage.soft_labels, "anew" if shuffle else None
        ),
        eval_collator=collator(data.processor, single_face, shuffle="by_row" if shuffle else None),
        compute_metrics=EngagementMetric(data.label_names, score).score_trainer_predictions,
        callbacks=[EarlyStoppingCallback(patience)] if patience else [],
    )
    tell_epochs(trainer, run.name)
    keep_events_in_run(trainer, run)
    return trainer


def _describe_run(run: StageRun, data: StageData, start_from: str | Path | None) -> Results:
    """The parts of the results that are known before the training."""
    return Results(
        stage=run.name,
        label_names=data.label_names,
        started_from=Path(start_from).name if start_from else run.stage.encoder,
        started_from_data=_data_behind(start) if (start := resolve_start(start_from)) else None,
        seed=run.training.seed,
        recipe=dict(recipe_as_given(run).options),
        data=data.description,
        train_label_counts=count_labels(data.train.label_ids, data.label_names),
        environment=describe_environment(run.training.device),
    )


def _data_behind(start_from: str | Path) -> str | None:
    """The training data of the model that a stage starts from; None: unknown."""
    folder = Path(start_from)
    data = read_results(folder).data if (folder / RESULTS_FILE).is_file() else None
    return data.in_words() if data else None


if __name__ == "__main__":
    sys.exit(main())
