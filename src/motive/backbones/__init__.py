"""Video models by family. `load_backbone` finds the family from the model's own files."""

from typing import TYPE_CHECKING

from motive.backbones.source import ModelSource
from motive.errors import UserError

if TYPE_CHECKING:
    from motive.backbones.base import Backbone

# Where the adapter of a pipeline class is.
FAMILIES = {
    "AllegroPipeline": "motive.backbones.allegro:AllegroBackbone",
    "AnimateDiffPipeline": "motive.backbones.animatediff:AnimateDiffBackbone",
    "CogVideoXImageToVideoPipeline": "motive.backbones.cogvideox:CogVideoXBackbone",
    "CogVideoXPipeline": "motive.backbones.cogvideox:CogVideoXBackbone",
    "Cosmos2_5_PredictBasePipeline": "motive.backbones.cosmos_25:Cosmos25Backbone",
    "Cosmos2VideoToWorldPipeline": "motive.backbones.cosmos:CosmosBackbone",
    "HunyuanVideo15Pipeline": "motive.backbones.hunyuan_video_15:HunyuanVideo15Backbone",
    "HunyuanVideoPipeline": "motive.backbones.hunyuan_video:HunyuanVideoBackbone",
    "LTX2ConditionPipeline": "motive.backbones.ltx2:LTX2Backbone",
    "LTX2ImageToVideoPipeline": "motive.backbones.ltx2:LTX2Backbone",
    "LTX2Pipeline": "motive.backbones.ltx2:LTX2Backbone",
    "LTXConditionPipeline": "motive.backbones.ltx:LTXBackbone",
    "LTXImageToVideoPipeline": "motive.backbones.ltx:LTXBackbone",
    "LTXPipeline": "motive.backbones.ltx:LTXBackbone",
    "MochiPipeline": "motive.backbones.mochi:MochiBackbone",
    "SkyReelsV2DiffusionForcingPipeline": "motive.backbones.skyreels_v2:SkyReelsV2Backbone",
    "SkyReelsV2ImageToVideoPipeline": "motive.backbones.skyreels_v2:SkyReelsV2ImageBackbone",
    "SkyReelsV2Pipeline": "motive.backbones.skyreels_v2:SkyReelsV2Backbone",
    "StableVideoDiffusionPipeline": "motive.backbones.svd:StableVideoDiffusionBackbone",
    "TextToVideoSDPipeline": "motive.backbones.modelscope:ModelScopeBackbone",
    "WanImageToVideoPipeline": "motive.backbones.wan_image:WanImageBackbone",
    "WanPipeline": "motive.backbones.wan:WanBackbone",
}


_DTYPES = ("float32", "bfloat16", "float16")


def load_backbone(
    source: ModelSource,
    *,
    dtype: str = "auto",
    device: str = "auto",
    text_dtype: str = "auto",
    threads: int | None = None,
) -> "Backbone":
    """The adapter for `source`; no weights are loaded yet.

    dtype, device, text_dtype, threads: as of `motive.backbones.base.Backbone`.

    Raises UserError for a pipeline class that no adapter covers, or a dtype that is not there. A device
    that is not there is refused when it is first asked for.
    """
    from motive.backbones.catalog import adapter_class, known_pipelines

    known = known_pipelines()
    if source.pipeline_class not in known:
        raise UserError(
            f"{source.name} is a {source.pipeline_class or 'nameless'} pipeline, which has no adapter "
            f"yet: use one of {', '.join(known)}, or write one as docs/adapters.md shows"
        )
    for wanted in (dtype, text_dtype):
        if wanted not in (*_DTYPES, "auto"):
            raise UserError(f"there is no dtype '{wanted}': use {', '.join(_DTYPES)} or auto")
    adapter = adapter_class(source.pipeline_class)
    return adapter(source, dtype, device, text_dtype=text_dtype, threads=threads)
