"""LTContext (Bahrami et al., ICCV 2023, arXiv 2308.11358): attention nearby and, sparsely, across the video."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from crossview.downstream.segmentation.masked_layers import attend, instance_norm, key_windows, query_windows
from crossview.downstream.segmentation.segmenter import SegmentationModel, at_least, check_batch, share
from crossview.errors import UserError


class LTContext(SegmentationModel):
    """The first stage labels the features and narrower ones refine the labels; each layer looks near and far.

    The released weights are without instance norm (the released code's switch is inverted), and so is the default
    here. Padded keys get no weight and norms count only real steps, so padding changes nothing.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        width: int = 64,
        stages: int = 4,
        layers: int = 9,
        window: int = 64,
        stride: int = 64,
        reduction: int = 2,
        instance_norm: bool = False,
        input_dropout: float = 0.3,
        dropout: float = 0.2,
        attention_dropout: float = 0.2,
        projection_dropout: float = 0.1,
        smoothing: float = 0.17,
    ) -> None:
        """`window` is W of the paper, the queries of a window, and `stride` G, the steps between tokens far away.

        Stages after the first have the width divided by `reduction`; `input_dropout` drops whole channels.
        """
        super().__init__(dim, classes, smoothing)
        counts = {"width": width, "stages": stages, "layers": layers, "stride": stride, "reduction": reduction}
        for name, value in counts.items():
            at_least(name, value, 1)
        for name, rate in (("input_dropout", input_dropout), ("dropout", dropout)):
            share(name, rate)
        share("attention_dropout", attention_dropout)
        share("projection_dropout", projection_dropout)
        if window < 2 or window % 2:
            raise UserError(f"window is {window}; it must be even: windows of keys reach half a window further")
        if width % (2 * reduction) or width % 2:
            raise UserError(f"width is {width} and reduction is {reduction}; twice the reduction must divide the width")
        self.input_dropout = nn.Dropout1d(input_dropout)
        narrow = width // reduction
        self.reduce = nn.Conv1d(width, narrow, 1) if stages > 1 else None

        def block(channels: int, layer: int) -> Block:
            near = Near(channels, window, attention_dropout, projection_dropout)
            far = Far(channels, stride, attention_dropout, projection_dropout)
            return Block(channels, 2**layer, near, far, instance_norm, dropout)

        self.stages = nn.ModuleList()
        for stage in range(stages):
            channels = narrow if stage else width
            blocks = [block(channels, layer) for layer in range(layers)]
            self.stages.append(Stage(classes if stage else dim, channels, classes, blocks))

    def forward(self, features: Tensor, mask: Tensor) -> list[Tensor]:
        """(B, T, D) -> logits (B, T, C) of every stage."""
        check_batch(features, mask, self.dim)
        x = features.transpose(1, 2)  # (B, D, T)
        feature: Tensor | None = None
        outputs = []
        for number, stage in enumerate(self.stages):
            logits, feature = stage(self.input_dropout(x) * mask[:, None], feature, mask)
            outputs.append(logits.transpose(1, 2))
            if number == 0 and self.reduce is not None:
                feature = self.reduce(feature) * mask[:, None]
            x = logits.softmax(1)
        return outputs


class Stage(nn.Module):
    """A projection, blocks whose convolutions reach ever further, and a classifier."""

    def __init__(self, width_in: int, width: int, classes: int, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.project = nn.Conv1d(width_in, width, 1)
        self.blocks = nn.ModuleList(blocks)
        self.classify = nn.Conv1d(width, classes, 1)

    def forward(self, x: Tensor, previous: Tensor | None, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, T) and the previous stage's feature (B, width, T) -> logits (B, C, T), feature (B, width, T)."""
        x = self.project(x) * mask[:, None]
        for block in self.blocks:
            x = block(x, previous, mask)
        return self.classify(x) * mask[:, None], x


class Block(nn.Module):
    """A dilated convolution, attention nearby, attention far away, and a projection, all with residuals."""

    def __init__(self, width: int, dilation: int, near: Near, far: Far, normed: bool, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.near, self.far, self.normed = near, far, normed
        self.project = nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, previous: Tensor | None, mask: Tensor) -> Tensor:
        """(B, D, T) -> (B, D, T); values are of the previous stage's feature, if there is one."""
        y = functional.gelu(self.conv(x))
        values = None if previous is None else self._norm(previous, mask)
        for attention in (self.near, self.far):
            y = y + attention(self._norm(y, mask), values, mask)
        result: Tensor = (x + self.dropout(self.project(y))) * mask[:, None]
        return result

    def _norm(self, x: Tensor, mask: Tensor) -> Tensor:
        return instance_norm(x, mask[:, None].to(x.dtype)) if self.normed else x


class Attention(nn.Module, ABC):
    """Attention with one head of half the width; subclasses say which steps see each other."""

    def __init__(self, width: int, dropout: float, projection_dropout: float) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv1d(width, width // 2, 1) for _ in range(3))
        self.out = nn.Conv1d(width // 2, width, 1)
        self.dropout = dropout
        self.out_dropout = nn.Dropout(projection_dropout)

    def forward(self, x: Tensor, values: Tensor | None, mask: Tensor) -> Tensor:
        """(B, D, T) -> (B, D, T); values are of x where there are none."""
        q, k, v = (
            conv(of).transpose(1, 2)  # (B, T, D / 2)
            for conv, of in ((self.query, x), (self.key, x), (self.value, x if values is None else values))
        )
        attended = self.attended(q, k, v, mask)[:, : x.shape[2]].transpose(1, 2)
        projected: Tensor = self.out_dropout(self.out(functional.gelu(attended)))
        return projected

    @abstractmethod
    def attended(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) -> (B, T or more, D)."""

    @property
    def rate(self) -> float:
        """Dropout of attention weights: none in evaluation."""
        return self.dropout if self.training else 0.0


class Near(Attention):
    """Attention in windows of `window` queries to twice as many keys, half a window further on either side."""

    def __init__(self, width: int, window: int, dropout: float, projection_dropout: float) -> None:
        super().__init__(width, dropout, projection_dropout)
        self.window = window

    def attended(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) -> (B, N window, D)."""
        keys, values = (key_windows(x, self.window, self.window // 2) for x in (k, v))  # (B, N, 2 window, D)
        return attend(query_windows(q, self.window), keys, values, self.allowed(mask), self.rate).flatten(1, 2)

    def allowed(self, mask: Tensor) -> Tensor:
        """The real keys of each window: bool (B, T) -> (B, N, 1, 2 window)."""
        return key_windows(mask[..., None], self.window, self.window // 2).transpose(2, 3)


class Far(Attention):
    """Attention among every `stride`-th step of the whole video: `stride` interleaved sequences."""

    def __init__(self, width: int, stride: int, dropout: float, projection_dropout: float) -> None:
        super().__init__(width, dropout, projection_dropout)
        self.stride = stride

    def attended(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) -> (B, N stride, D)."""
        q, k, v, real = (
            query_windows(x, self.stride).transpose(1, 2)  # (B, stride, N, D)
            for x in (q, k, v, mask[..., None])
        )
        return attend(q, k, v, real.transpose(2, 3), self.rate).transpose(1, 2).flatten(1, 2)
