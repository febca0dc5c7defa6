"""Train `tiny-wan`, the small WanPipeline that the demo, the tests and the studies run on.

    python scripts/train_tiny_wan.py vae         --work DIR --minutes 103
    python scripts/train_tiny_wan.py transformer --work DIR --minutes 45
    python scripts/train_tiny_wan.py assemble    --work DIR --out src/motive/assets/tiny-wan

Everything is drawn from MotionZoo. The VAE sees every kind of clip. The transformer is left weak on
motion on purpose: nine of ten of its clips are static or only the camera moves, so that there is
something to teach it. Both parts write a checkpoint every minute and go on from it when run again;
`assemble` normalises the latents, measures the VAE on clips that nobody trained on, saves the
pipeline in diffusers' own format and writes the model card.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from motive.zoo.captions import caption_of
from motive.zoo.motions import KINDS, OTHER_KINDS, PAPER_MOTIONS
from motive.zoo.scene import Scene, draw_scene, render_frames

SEED = 20_260  # of the weights, the corpora and the noise
VAE_CORPUS, TRANSFORMER_CORPUS, HELD_OUT = 101, 102, 103  # corpus seeds
SHIFT = 3.0  # of the timestep schedule, as Wan 2.1's
CAPTION_DROPOUT = 0.1
PROMPT_LENGTH = 32  # tokens; WanPipeline.__call__ pads to 512 unless told otherwise
SAME_CAPTION = 0.3  # share of clips that are only called "a shape in a scene"


def make_vae() -> AutoencoderKLWan:
    return AutoencoderKLWan(
        base_dim=8,
        z_dim=16,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 16,
        latents_std=[1.0] * 16,
    )


def make_transformer() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=4,
        attention_head_dim=36,
        in_channels=16,
        out_channels=16,
        text_dim=64,
        freq_dim=64,
        ffn_dim=512,
        num_layers=7,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=128,
    )


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer of the zoo's captions, with T5's special tokens."""
    scenes = (draw_scene(KINDS[i % 14], 9, seed=VAE_CORPUS, index=i) for i in range(4000))
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=[chr(c) for c in range(32, 127)],
        show_progress=False,
    )
    core.train_from_iterator((caption_of(s) for s in scenes), trainer)
    core.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=PROMPT_LENGTH,
    )


def make_text_encoder(vocab: int) -> UMT5EncoderModel:
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=vocab,
            d_model=64,
            d_kv=16,
            d_ff=128,
            num_layers=2,
            num_heads=4,
            pad_token_id=0,
            eos_token_id=1,
        )
    )


def as_input(frames_nfhw3: np.ndarray) -> torch.Tensor:
    """uint8 clips to the VAE's `(B, 3, F, H, W)` in -1..1."""
    return torch.from_numpy(frames_nfhw3).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


class Checkpoint:
    """Model, optimiser, step and seconds spent, saved atomically."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, state: dict[str, object]) -> None:
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.path)

    def load(self) -> dict[str, object] | None:
        return torch.load(self.path, weights_only=True) if self.path.exists() else None


def train(
    modules: torch.nn.ModuleDict,
    loss_of: Callable[[int, float], torch.Tensor],
    *,
    work: Path,
    name: str,
    minutes: float,
    peak_rate: float,
    ema: float = 0.0,
) -> None:
    """AdamW for a budget of minutes: linear warm-up, then a cosine to zero over the budget.

    loss_of: takes the step and the share of the budget spent. Logged every 50 steps.
    ema: decay of the averaged weights that are saved as the result; 0 keeps the last ones.
    """
    checkpoint = Checkpoint(work / f"{name}.ckpt")
    optimizer = torch.optim.AdamW(modules.parameters(), lr=peak_rate, weight_decay=1e-3)
    average = {k: v.detach().clone() for k, v in modules.state_dict().items()}
    step, spent, log = 0, 0.0, []
    if (state := checkpoint.load()) is not None:
        modules.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        average, step, spent, log = state["average"], state["step"], state["spent"], state["log"]
    budget, recent, last_saved = minutes * 60, [], time.monotonic()

    def save() -> None:
        checkpoint.save(
            {
                "modules": modules.state_dict(),
                "average": average,
                "optimizer": optimizer.state_dict(),
                "step": step,
                "spent": spent,
                "log": log,
            }
        )

    while spent < budget:
        start = time.monotonic()
        share = spent / budget
        for group in optimizer.param_groups:
            group["lr"] = (
                peak_rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * share))
            )
        loss = loss_of(step, share)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()
        decay = min(ema, (step + 1) / (step + 10))
        for key, value in modules.state_dict().items():
            average[key].lerp_(value, 1 - decay) if value.is_floating_point() else None
        step, spent = step + 1, spent + time.monotonic() - start
        recent.append(loss.item())
        if step % 50 == 0:
            log.append([step, round(spent), float(np.mean(recent))])
            print(f"{name} step {step} {spent / 60:.1f} min loss {np.mean(recent):.5f}", flush=True)
            recent.clear()
        if time.monotonic() - last_saved > 60:
            save()
            last_saved = time.monotonic()
    save()
    modules.load_state_dict(average)
    print(f"{name}: {step} steps, {spent / 60:.1f} minutes", flush=True)


def vae_clips(corpus: int, count: int, frames: int) -> np.ndarray:
    scenes = (draw_scene(KINDS[i % 14], frames, seed=corpus, index=i) for i in range(count))
    return np.stack([render_frames(s) for s in scenes])


def vae_lesson(step: int, share: float) -> tuple[int, int, int]:
    """Frames, side in pixels and batch: first many steps on small images, then short and long clips."""
    if share < 0.35:
        return 1, 32, 16
    if share < 0.7:
        return 9, 32, 4
    if share < 0.85:
        return (17, 64, 1) if step % 4 == 3 else (9, 64, 2)
    # What drifts over many causal chunks is seen in long clips only.
    return ((33, 64, 1), (17, 64, 2), (9, 64, 4))[step % 3]


def train_vae(work: Path, minutes: float) -> AutoencoderKLWan:
    torch.manual_seed(SEED)
    vae = make_vae()
    for module in vae.modules():
        # Channels last makes a step 1.6 times faster on a CPU.
        if isinstance(module, torch.nn.Conv3d):
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last_3d)
    pool = vae_clips(VAE_CORPUS, 700, 33) if minutes else np.empty(0)

    def loss_of(step: int, share: float) -> torch.Tensor:
        rng = np.random.default_rng([SEED, step])
        frames, size, batch = vae_lesson(step, share)
        f, y, x = rng.integers([34 - frames, 65 - size, 65 - size])
        clips = pool[rng.integers(len(pool), size=batch)]
        video = as_input(clips[:, f : f + frames, y : y + size, x : x + size])
        video = video.contiguous(memory_format=torch.channels_last_3d)
        posterior = vae.encode(video).latent_dist
        # An untrained posterior's noise drowns its mean: the noise comes in by degrees.
        noise = torch.from_numpy(rng.standard_normal(posterior.mean.shape, np.float32))
        spread = float(np.clip((share - 0.35) / 0.15, 0, 1))
        output = vae.decode(posterior.mean + spread * posterior.std * noise).sample
        # An absolute error keeps edges while the network is far off; PSNR is about the square.
        absolute = 0.2 if share < 0.6 else 0.05
        error = (output - video).square().mean() + absolute * (output - video).abs().mean()
        return error + 1e-5 * spread * posterior.kl().mean() / posterior.mean[0].numel()

    modules = torch.nn.ModuleDict({"vae": vae})
    train(modules, loss_of, work=work, name="vae", minutes=minutes, peak_rate=2e-3, ema=0.995)
    return vae.eval()


def latents_of(vae: AutoencoderKLWan, scenes: Iterator[Scene]) -> Iterator[torch.Tensor]:
    with torch.no_grad():
        for scene in scenes:
            yield vae.encode(as_input(render_frames(scene)[None])).latent_dist.mode()[0]


def weak_scene(index: int) -> Scene:
    """A clip of the base model's corpus: nine of ten without any motion of the object."""
    rng = np.random.default_rng([SEED, 7, index])
    kinds = PAPER_MOTIONS if rng.random() < 0.1 else OTHER_KINDS
    frames = int(rng.choice([9, 17, 33], p=[0.3, 0.5, 0.2]))
    return draw_scene(str(rng.choice(kinds)), frames, seed=TRANSFORMER_CORPUS, index=index)


def normalise(vae: AutoencoderKLWan) -> None:
    """Give the VAE the per-channel mean and deviation of its latents, over clips of every kind."""
    scenes = (draw_scene(KINDS[i % 14], 17, seed=VAE_CORPUS, index=i) for i in range(140))
    stack = torch.stack(list(latents_of(vae, scenes))).transpose(0, 1).flatten(1)
    vae.register_to_config(
        latents_mean=[round(v, 6) for v in stack.mean(1).tolist()],
        latents_std=[round(v, 6) for v in stack.std(1).tolist()],
    )


def corpus_latents(work: Path, vae: AutoencoderKLWan, count: int) -> tuple[list, list[str]]:
    """Normalised latents and captions of the base model's corpus, cached in `work`."""
    path = work / "latents.pt"
    if not path.exists():
        mean = torch.tensor(vae.config.latents_mean).view(-1, 1, 1, 1)
        std = torch.tensor(vae.config.latents_std).view(-1, 1, 1, 1)
        latents = latents_of(vae, (weak_scene(i) for i in range(count)))
        torch.save([((z - mean) / std) for z in latents], path)
    captions = []
    for i in range(count):
        same = np.random.default_rng([SEED, 8, i]).random() < SAME_CAPTION
        captions.append("a shape in a scene" if same else caption_of(weak_scene(i)))
    return torch.load(path, weights_only=True), captions


def train_transformer(work: Path, minutes: float, count: int) -> torch.nn.ModuleDict:
    vae = train_vae(work, 0)
    normalise(vae)
    tokenizer = make_tokenizer()
    torch.manual_seed(SEED + 1)
    modules = torch.nn.ModuleDict(
        {"transformer": make_transformer(), "text_encoder": make_text_encoder(len(tokenizer))}
    )
    # Wan zero-initialises its output; a small model that starts there learns faster too.
    torch.nn.init.zeros_(modules["transformer"].proj_out.weight)
    latents, captions = corpus_latents(work, vae, count) if minutes else ([], [])
    by_length: dict[int, list[int]] = {}
    for i, z in enumerate(latents):
        by_length.setdefault(z.shape[1], []).append(i)
    lengths = sorted(by_length)
    weights = np.array([len(by_length[n]) for n in lengths], float)

    def loss_of(step: int, share: float) -> torch.Tensor:
        rng = np.random.default_rng([SEED, 9, step])
        length = int(rng.choice(lengths, p=weights / weights.sum()))
        chosen = rng.choice(by_length[length], 24 // length + 4)
        clean = torch.stack([latents[i] for i in chosen])
        texts = ["" if rng.random() < CAPTION_DROPOUT else captions[i] for i in chosen]
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        text = modules["text_encoder"](tokens.input_ids, tokens.attention_mask).last_hidden_state
        # WanPipeline pads the embeddings with zeros and gives the transformer no mask.
        text = text * tokens.attention_mask[..., None]
        # Most steps at the tokenizer's own length; some at the pipeline's default, so that both work.
        padded = 512 if step % 5 == 4 else PROMPT_LENGTH
        text = torch.nn.functional.pad(text, (0, 0, 0, padded - text.shape[1]))
        u = torch.from_numpy(rng.random(len(chosen))).float()
        sigma = (SHIFT * u / (1 + (SHIFT - 1) * u)).view(-1, 1, 1, 1, 1)
        noise = torch.from_numpy(rng.standard_normal(clean.shape, np.float32))
        noisy = (1 - sigma) * clean + sigma * noise
        out = modules["transformer"](noisy, 1000 * sigma.flatten(), text, return_dict=False)[0]
        return (out - (noise - clean)).square().mean()

    train(
        modules,
        loss_of,
        work=work,
        name="transformer",
        minutes=minutes,
        peak_rate=1.5e-3,
        ema=0.999,
    )
    return modules.eval()


def psnr_on_unseen(vae: AutoencoderKLWan, count: int = 70) -> dict[str, float]:
    """Mean PSNR in dB over clips of every kind and length that were not trained on."""
    values = []
    with torch.no_grad():
        for i in range(count):
            scene = draw_scene(KINDS[i % 14], (9, 17, 33)[i % 3], seed=HELD_OUT, index=i)
            video = as_input(render_frames(scene)[None])
            output = vae.decode(vae.encode(video).latent_dist.mode()).sample.clamp(-1, 1)
            values.append(10 * math.log10(4 / (output - video).square().mean().item()))
    return {"mean": round(float(np.mean(values)), 2), "worst": round(min(values), 2)}


def assemble(work: Path, out: Path, count: int) -> None:
    modules = train_transformer(work, 0, count)
    vae = train_vae(work, 0)
    normalise(vae)
    logs = {n: Checkpoint(work / f"{n}.ckpt").load() for n in ("vae", "transformer")}
    pipeline = WanPipeline(
        tokenizer=make_tokenizer(),
        text_encoder=modules["text_encoder"],
        vae=vae,
        transformer=modules["transformer"],
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
    )
    pipeline.save_pretrained(out, safe_serialization=True)
    # The name that transformers 4 and 5 both know; 5 writes its own.
    for file in (out / "model_index.json", out / "tokenizer" / "tokenizer_config.json"):
        file.write_text(file.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
    # What `motive curate` and `motive generate` take for this model unless told otherwise.
    advice = {"frames": 33, "height": 64, "width": 64, "fps": 16, "steps": 20}
    (out / "motive.json").write_text(json.dumps(advice) + "\n")
    facts = {
        "seed": SEED,
        "corpora": {"vae": VAE_CORPUS, "transformer": TRANSFORMER_CORPUS, "held out": HELD_OUT},
        "transformer_clips": count,
        "parameters": {
            "vae": sum(p.numel() for p in vae.parameters()),
            "transformer": sum(p.numel() for p in modules["transformer"].parameters()),
            "text_encoder": sum(p.numel() for p in modules["text_encoder"].parameters()),
        },
        "psnr_unseen_db": psnr_on_unseen(vae),
        "steps": {n: s["step"] for n, s in logs.items()},
        "hours": {n: round(s["spent"] / 3600, 2) for n, s in logs.items()},
        "loss": {n: thinned(s["log"]) for n, s in logs.items()},
    }
    (out / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    (out / "README.md").write_text(MODEL_CARD.format(**card_values(facts)))
    print(json.dumps({k: v for k, v in facts.items() if k != "loss"}, indent=1))


def thinned(log: list[Any]) -> list[Any]:
    """About twenty entries and the last."""
    return [*log[: -1 : max(1, len(log) // 20)], log[-1]]


MODEL_CARD = """# tiny-wan

A complete `WanPipeline` in miniature: a small `WanTransformer3DModel` ({transformer:,} parameters), a
small `AutoencoderKLWan` ({vae:,}), a small UMT5 ({text_encoder:,}) with its tokenizer, trained from
nothing on MotionZoo by `scripts/train_tiny_wan.py`. It makes 64 x 64 clips of 9, 17 or 33 frames. The
demo, the tests and the studies of `motive` run on it, by the same code that runs on Wan2.1-T2V-1.3B.

**Weak on motion on purpose.** Nine of ten clips that the transformer saw were static or only the camera
moved, so that there is something to teach it.

| | VAE | transformer and text encoder |
|---|---|---|
| data | MotionZoo, corpus seed 101, every kind | MotionZoo, corpus seed 102, {clips} clips |
| weights' seed | {seed} | {seed_plus_one} |
| steps | {vae_steps:,} | {transformer_steps:,} |
| hours on one core of a two-core machine | {vae_hours} | {transformer_hours} |
| last losses logged | {vae_loss} | {transformer_loss} |

The VAE reconstructs clips of corpus 103, which nobody trained on, at {psnr_mean} dB PSNR on average
(70 clips, 9 to 33 frames; worst clip {psnr_worst} dB).

- Objective: flow matching, uniform u with shift 3; {dropout:.0%} of captions dropped; {same:.0%} of clips
  captioned "a shape in a scene". Averaged weights (EMA) are what is saved.
- Captions are padded to {prompt_length} tokens (the `model_max_length`); a fifth of the steps padded
  to 512, which `WanPipeline.__call__` does unless told otherwise.
- `motive.json` holds the frames and the size that `motive curate` takes by default, and the rate and
  the steps of `motive generate` beside them.
- {remark}
- `training.json` has the loss curves. Licence: Apache-2.0.

It is a test instrument. Its pictures are blurred, it knows ten colours, and what holds for it need not
hold for a large model.
"""
REMARK = (
    "How many steps fit in the budget depends on the machine, so a new training gives other weights. "
    "The shipped VAE's first 45 minutes ran on a machine busy with other work, before its memory "
    "format was changed to channels last; its first 75 minutes saw clips of 17 frames, and only its "
    "last 16 minutes the present palette of light objects in dim scenes."
)


def card_values(facts: dict[str, Any]) -> dict[str, object]:
    return {
        **facts["parameters"],
        "clips": facts["transformer_clips"],
        "seed": facts["seed"],
        "seed_plus_one": facts["seed"] + 1,
        "vae_steps": facts["steps"]["vae"],
        "transformer_steps": facts["steps"]["transformer"],
        "vae_hours": facts["hours"]["vae"],
        "transformer_hours": facts["hours"]["transformer"],
        "vae_loss": facts["loss"]["vae"][-1][2],
        "transformer_loss": facts["loss"]["transformer"][-1][2],
        "psnr_mean": facts["psnr_unseen_db"]["mean"],
        "psnr_worst": facts["psnr_unseen_db"]["worst"],
        "dropout": CAPTION_DROPOUT,
        "same": SAME_CAPTION,
        "prompt_length": PROMPT_LENGTH,
        "remark": REMARK,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=["vae", "transformer", "assemble"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    if args.part == "vae":
        print(psnr_on_unseen(train_vae(args.work, args.minutes)))
    elif args.part == "transformer":
        train_transformer(args.work, args.minutes, args.clips)
    else:
        assemble(args.work, args.out, args.clips)


if __name__ == "__main__":
    main()
