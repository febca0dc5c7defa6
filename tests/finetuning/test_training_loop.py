"""The loop against its parts written out: the objective, AdamW, batches, precision, interruption."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from invented import backbone_of, build_modelscope, largest_difference, wan_clips, weights

from motive.errors import UserError
from motive.finetuning import loop
from motive.finetuning.clips import TrainingClip
from motive.finetuning.loop import BatchLoss, TrainingPlan, train
from motive.finetuning.randomness import ClipOrder, draw_at, noise_at, training_draws
from motive.finetuning.state import TrainingState
from motive.gradients.trainers import Draw

# Sums in another order, through a few steps: of weights near 0.1, in float32.
ORDER_OF_SUMS = 2e-6


def plain_loss(
    network: torch.nn.Module, clip: TrainingClip, position: int, draws: list[Draw]
) -> torch.Tensor:
    """E‖v − (ε − h)‖² at z = (1 − σ) h + σ ε, through diffusers' model itself."""
    timestep = draw_at(draws, 0, position).timestep
    sigma, noise = timestep / 1000, noise_at(0, position, clip.latents_cfhw.shape)
    text = torch.zeros(24, 16)
    text[: len(clip.conditions["text"])] = clip.conditions["text"]
    output = network(
        hidden_states=((1 - sigma) * clip.latents_cfhw + sigma * noise)[None],
        timestep=torch.tensor([timestep]),
        encoder_hidden_states=text[None],
    ).sample[0]
    return (output - (noise - clip.latents_cfhw)).square().mean()


def test_a_step_is_adamw_on_the_mean_loss_of_its_clips(small_wan: Path) -> None:
    backbone, clips = backbone_of(small_wan), wan_clips((3, 2, 3))
    network, other = backbone.load_denoiser(), backbone.load_denoiser()
    plan = TrainingPlan(steps=2, batch=3, lr=1e-3, weight_decay=0.1)
    state = train(backbone, network, clips, plan)

    order = ClipOrder([c.clip_id for c in clips], 0)
    draws = training_draws(backbone, "uniform", None, None)
    moments = {
        name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in other.named_parameters()
    }
    for step in range(2):
        positions = range(3 * step, 3 * step + 3)
        loss = torch.stack([plain_loss(other, clips[order[p]], p, draws) for p in positions]).mean()
        assert state.losses[step] == pytest.approx(loss.item(), rel=1e-5)
        for parameter in other.parameters():
            parameter.grad = None
        loss.backward()
        for name, parameter in other.named_parameters():
            # AdamW (Loshchilov & Hutter 2019, algorithm 2), in float64.
            first, second = moments[name]
            gradient = parameter.grad
            assert gradient is not None
            first.mul_(0.9).add_(0.1 * gradient)
            second.mul_(0.999).add_(0.001 * gradient.square())
            unbiased = (second.double() / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
            update = first.double() / (1 - 0.9 ** (step + 1)) / unbiased
            parameter.data = (parameter.double() * (1 - 1e-3 * 0.1) - 1e-3 * update).float()
    # A gradient of next to nothing has a direction by rounding alone: the bound is on nearly all numbers.
    mine, theirs = weights(network), weights(other)
    far = sum(int(((mine[n] - theirs[n]).abs() > 2e-5).sum()) for n in mine)
    assert far < 0.001 * sum(p.numel() for p in mine.values())


def test_how_clips_are_grouped_and_listed_does_not_matter(
    small_wan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, clips = backbone_of(small_wan), wan_clips((3, 2, 3, 3, 2, 3))
    plan = TrainingPlan(steps=3, batch=4, lr=1e-4)
    together, alone, listed = (backbone.load_denoiser() for _ in range(3))
    first = train(backbone, together, clips, plan)
    train(backbone, listed, clips[::-1], plan)
    assert largest_difference(weights(together), weights(listed)) == 0
    monkeypatch.setattr(loop, "TOGETHER_CELLS", 1)
    second = train(backbone, alone, clips, plan)
    assert first.losses == pytest.approx(second.losses, rel=1e-5)
    assert largest_difference(weights(together), weights(alone)) < 100 * ORDER_OF_SUMS
    assert largest_difference(weights(together), weights(backbone.load_denoiser())) > 1e-4


def test_a_model_whose_clips_see_each_other_in_a_batch_gets_them_alone(small_wan: Path) -> None:
    backbone, clips = backbone_of(small_wan), wan_clips((3, 3, 3))

    def average_over_the_batch(module: object, args: object, output: torch.Tensor) -> torch.Tensor:
        return output + 0.1 * output.mean(0, keepdim=True) * (len(output) - 1)

    plan = TrainingPlan(steps=2, batch=3, lr=1e-4)
    network, other = backbone.load_denoiser(), backbone.load_denoiser()
    network.blocks[0].register_forward_hook(average_over_the_batch)
    losses = train(backbone, network, clips, plan).losses
    assert losses == pytest.approx(train(backbone, other, clips, plan).losses, rel=1e-5)


def test_an_interrupted_training_ends_as_an_undisturbed_one(
    small_wan: Path, tmp_path: Path
) -> None:
    backbone, clips = backbone_of(small_wan), wan_clips((3, 2, 3, 2, 2))
    plan = TrainingPlan(steps=7, batch=2, lr=1e-4)
    whole, halves = backbone.load_denoiser(), backbone.load_denoiser()
    undisturbed = train(backbone, whole, clips, plan)
    train(backbone, halves, clips, replace(plan, steps=3)).save(tmp_path / "state")
    again = backbone.load_denoiser()
    state = TrainingState(again, lr=plan.lr)
    state.load(tmp_path / "state")
    assert state.step == 3
    train(backbone, again, clips, plan, state=state)
    assert state.losses == undisturbed.losses
    assert largest_difference(weights(whole), weights(again)) == 0


def test_updates_that_bfloat16_would_lose_are_kept_under_bfloat16(small_wan: Path) -> None:
    backbone, clips = backbone_of(small_wan), wan_clips((3, 3))
    network = backbone.load_denoiser()
    before = weights(network)
    seen: list[torch.dtype] = []
    network.blocks[0].ffn.net[2].register_forward_hook(lambda m, a, out: seen.append(out.dtype))
    train(
        backbone, network, clips, TrainingPlan(steps=1, lr=1e-5, weight_decay=0, dtype="bfloat16")
    )
    assert set(seen) == {torch.bfloat16}  # computed in it
    after = weights(network)
    moved = [(after[n] != before[n]).double().mean().item() for n in before]
    assert min(moved) > 0.5
    name = "blocks.0.ffn.net.2.weight"
    assert after[name].dtype == torch.float32
    lost = after[name].bfloat16() == before[name].bfloat16()
    assert lost.double().mean() > 0.5  # most of them, had the weights been kept in bfloat16


def test_weights_in_bfloat16_are_refused(small_wan: Path) -> None:
    backbone = backbone_of(small_wan, "bfloat16")
    with pytest.raises(UserError, match="float32"):
        train(backbone, backbone.load_denoiser(), wan_clips((3,)), TrainingPlan(steps=1))


def test_the_loss_goes_down_on_a_few_clips(small_wan: Path) -> None:
    backbone, clips = backbone_of(small_wan), wan_clips((2, 2))
    plan = TrainingPlan(steps=60, batch=4, lr=1e-2, timestep_range=(700, 1000))
    losses = train(backbone, backbone.load_denoiser(), clips, plan).losses
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_unet_is_trained_by_diffusion(tmp_path: Path, prediction: str) -> None:
    backbone = backbone_of(build_modelscope(tmp_path, prediction))
    generator = torch.Generator().manual_seed(0)
    clips = [
        TrainingClip(
            f"clip {i}",
            torch.randn(4, 3, 8, 8, generator=generator),
            {"text": torch.randn(77, 16, generator=generator)},
        )
        for i in range(3)
    ]
    network = backbone.load_denoiser()
    plan = TrainingPlan(steps=6, batch=3, lr=3e-3)
    losses = train(backbone, network, clips, plan).losses
    # The first step's loss, through diffusers' own model and scheduler.
    fresh, draws = backbone.load_denoiser(), training_draws(backbone, "uniform", None, None)
    order, found = ClipOrder([c.clip_id for c in clips], 0), []
    schedule = backbone.schedule  # type: ignore[attr-defined]
    for position in range(3):
        clip, index = clips[order[position]], int(draw_at(draws, 0, position).timestep) - 1
        alpha = schedule.alphas_cumprod[index]
        noise = noise_at(0, position, clip.latents_cfhw.shape)
        noisy = alpha.sqrt() * clip.latents_cfhw + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clip.latents_cfhw
        target = noise if prediction == "epsilon" else velocity
        with torch.no_grad():
            output = fresh(noisy[None], index, clip.conditions["text"][None]).sample[0]
        found.append((output - target).square().mean().item())
    assert losses[0] == pytest.approx(sum(found) / 3, rel=1e-5)
    again = BatchLoss(backbone, network, plan)
    assert again.backward({p: clips[order[p]] for p in range(3)}) < losses[0]


def test_a_loss_that_is_not_finite_ends_the_training(small_wan: Path) -> None:
    backbone, clips = backbone_of(small_wan), wan_clips((2,))
    clips[0].latents_cfhw[0, 0, 0, 0] = torch.inf
    with pytest.raises(UserError, match=r"the loss of step 1 is .*lower --lr"):
        train(backbone, backbone.load_denoiser(), clips, TrainingPlan(steps=1))


def test_nothing_to_train_is_refused(small_wan: Path) -> None:
    backbone = backbone_of(small_wan)
    with pytest.raises(UserError, match="no clip"):
        train(backbone, backbone.load_denoiser(), [], TrainingPlan(steps=1))
    frozen = backbone.load_denoiser().requires_grad_(False)
    with pytest.raises(UserError, match="no parameter"):
        train(backbone, frozen, wan_clips((2,)), TrainingPlan(steps=1))


def test_a_damaged_or_foreign_state_is_refused(small_wan: Path, tmp_path: Path) -> None:
    backbone, file = backbone_of(small_wan), tmp_path / "state"
    network = backbone.load_denoiser()
    train(backbone, network, wan_clips((2,)), TrainingPlan(steps=1)).save(file)
    part = backbone.load_denoiser()
    part.patch_embedding.requires_grad_(False)
    with pytest.raises(UserError, match="not a state of this training"):
        TrainingState(part).load(file)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(UserError, match="begin this training anew"):
        TrainingState(network).load(file)
