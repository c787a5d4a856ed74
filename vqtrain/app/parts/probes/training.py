"""The training of a probe's transformer: how large it is, and what came of it."""

from dataclasses import asdict

from vqtrain.app.parts.probes.folder import TRANSFORMER
from vqtrain.app.parts.probes.run import TokenizerRun
from vqtrain.app.parts.probes.transformer import build_transformer, sizes_for
from vqtrain.errors import ConfigError, naming
from vqtrain.evaluation.settings import find_device
from vqtrain.generation.base import Condition, TokenModel
from vqtrain.generation.budget import learning_rate_of, steps_of
from vqtrain.generation.results import TransformerResult
from vqtrain.ops.seeds import seed_torch
from vqtrain.sweeps.job import training_seconds
from vqtrain.training.token_arrays import condition_of, read_tokens
from vqtrain.training.token_run import TokenRunSettings, train_token_model


def plan(run: TokenizerRun, condition: Condition) -> tuple[TokenModel, TokenRunSettings]:
    """Build the transformer that the budget allows, and decide how it is trained.

    Raises:
        ConfigError: If the budget is too small, or a setting does not fit.
    """
    options = run.options.training
    seed_torch(run.options.seed, "transformer")
    with naming("transformer"):
        model = build_transformer(run.form, options, condition, run.model.tokenizer.codebook)
    try:
        steps = steps_of(model, options.budget, options.batch_size)
    except ConfigError as error:  # it names another budget, too
        raise ConfigError(str(error).replace("budget=", "transformer.budget=")) from error
    with naming("transformer"):
        settings = TokenRunSettings(
            steps=steps,
            batch_size=options.batch_size,
            accumulate=options.accumulate,
            lr=options.lr or learning_rate_of(sizes_for(options)),
            max_time=options.max_time,
            accelerator="gpu" if find_device(run.settings.device).type == "cuda" else "cpu",
            devices=run.options.devices,
            precision=run.settings.precision,
            seed=run.options.seed,
        )
    settings.trainer(run.images.num_val)  # refuses what the trainer does
    return model, settings


def train(run: TokenizerRun) -> int | None:
    """Train the transformer, or continue; return the exit code of a training that has stopped."""
    options, folder = run.options.training, run.folder / TRANSFORMER
    training, validation = (
        read_tokens(each, condition=options.condition)
        for each in (run.train_tokens, run.val_tokens)
    )
    condition = condition_of(training, validation)
    model, settings = plan(run, condition)
    trained = train_token_model(
        model=model,
        training=training,
        validation=validation,
        num_positions=run.num_positions,
        settings=settings,
        config={"transformer": run.options.training_figures, "condition": asdict(condition)},
        command=run.command,
        run_dir=folder,
    )
    if trained is None:  # another process writes the results
        return 0
    outcome = trained.outcome
    if outcome.signal_number is not None:
        return 128 + outcome.signal_number
    if outcome.stopped is not None:
        return 0
    sizes, images_seen = sizes_for(options), settings.steps * settings.batch_size
    run.keep(
        transformer=TransformerResult(
            kind=model.kind,  # type: ignore[arg-type]  # a word of them
            is_bound=model.is_bound,
            depth=sizes.depth,
            dim=sizes.dim,
            parameters=sum(weight.numel() for weight in model.parameters()),
            steps=settings.steps,
            flops=float(model.flops * images_seen),
            images_seen=images_seen,
            bits_per_token=trained.bits_per_token,
            bits_per_pixel=trained.bits_per_pixel,
            curve=trained.curve,
            seconds=training_seconds(folder) or 0.0,
        )
    )
    return None
