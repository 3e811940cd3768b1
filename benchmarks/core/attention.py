"""What does the self-attention of layer 3 cost, in time and memory, beside the authors' form?"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.measure import (
    BACKBONE,
    Record,
    bare_network,
    fastest,
    images_for,
    in_subprocess,
    interleaved,
    network_batches,
    parser,
    peak_memory,
    ratio,
    run_network,
    shown,
    spread,
    table,
)
from sapatchcore.embed.attention import self_attention

QUESTION = "Self-attention: ours, the authors' form and PyTorch's fused kernel, on real layer-3 maps"


def main(arguments: list[str] | None = None) -> None:
    options = parser("attention", QUESTION)
    options.add_argument("--backbone", default=BACKBONE, help="random weights (default: %(default)s)")
    options.add_argument("--child", help=argparse.SUPPRESS)
    given = options.parse_args(arguments)
    if given.child:
        child(json.loads(given.child))
        return
    name = given.backbone = "resnet18" if given.quick else given.backbone
    repeats = 2 if given.quick else given.repeats or 15
    record = Record("attention", QUESTION, given)
    sources = images_for(given.data, 8)
    rows = []
    for batch_size in (1, 8):
        maps = layer3(name, sources[:batch_size])
        x = F.max_pool2d(maps, kernel_size=3, stride=1, padding=1)
        plain = network_batches(sources[:batch_size], batch_size, channels_last=False, dtype=torch.float32)
        last = network_batches(sources[:batch_size], batch_size, channels_last=True, dtype=torch.float32)
        networks = {flag: bare_network(name, channels_last=flag) for flag in (False, True)}
        variants = {
            **{form: lambda f=f, x=x: f(x) for form, f in FORMS.items()},
            "network NCHW": lambda b=plain, n=networks[False]: run_network(n, b),
            "network channels-last": lambda b=last, n=networks[True]: run_network(n, b),
        }
        with torch.inference_mode():
            seconds = interleaved(variants, repeats=repeats, warm_up=2)
        bare = fastest(seconds, ("network NCHW", "network channels-last"))
        exact = authors(x.double())
        peaks = memory(x)
        found: dict[str, object] = {
            "shape": list(x.shape),
            "largest_value": float(x.max()),
            "distinct_values_a_channel": distinct(x),
            "faster_bare_network": bare,
            "authors_over_ours": ratio(seconds, "authors", "ours"),
            "fused_over_ours": ratio(seconds, "fused", "ours"),
            "network_ms_an_image": {
                one: spread(seconds[one], 1000 / batch_size) for one in seconds if one.startswith("network")
            },
        }
        for form, f in FORMS.items():
            found[form] = {
                "ms_an_image": spread(seconds[form], 1000 / batch_size),
                "share_of_bare_network": ratio(seconds, form, bare),
                "largest_error": float((f(x).double() - exact).abs().max()),
                "peak_mb_an_image": peaks[form] / 1e6 / batch_size,
            }
            rows.append(
                (
                    batch_size,
                    form,
                    shown(found[form]["ms_an_image"]),
                    found[form]["share_of_bare_network"]["median"],
                    found[form]["peak_mb_an_image"],
                    found[form]["largest_error"],
                )
            )
        record[f"batch {batch_size}"] = found
    table(("batch", "form", "ms an image", "of the bare network", "peak MB an image", "largest error"), rows)
    record.write(given.output)


def authors(x: torch.Tensor) -> torch.Tensor:
    """(n, c, h, w) → the same: an N×N matrix for every channel, as the paper writes it."""
    v = x.flatten(2).unsqueeze(3)  # (n, c, N, 1)
    return (torch.softmax(v @ v.transpose(2, 3), dim=3) @ v).reshape(x.shape)


def fused(x: torch.Tensor) -> torch.Tensor:
    """(n, c, h, w) → the same: PyTorch's fused kernel with heads of size 1, which stores no N×N matrix."""
    v = x.contiguous().flatten(2).unsqueeze(3)  # (n, c, N, 1)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(v, v, v, scale=1.0).reshape(x.shape)


FORMS = {"ours": self_attention, "fused": fused, "authors": authors}


@torch.inference_mode()
def layer3(name: str, sources: list) -> torch.Tensor:
    (batch,) = network_batches(sources, len(sources), channels_last=True, dtype=torch.float32)
    return bare_network(name, channels_last=True)(batch)[1].contiguous()


def distinct(x: torch.Tensor) -> float:
    """How many different values a channel has, on average: what max pooling leaves to be computed."""
    values = x.flatten(2).sort(dim=2).values
    return float((values[..., 1:] != values[..., :-1]).sum(2).add(1).float().mean())


def memory(x: torch.Tensor) -> dict[str, int]:
    """Bytes above the state before it, for each form in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="sapatchcore-") as folder:
        file = Path(folder) / "x.pt"
        torch.save(x.clone(), file)
        return {
            form: int(in_subprocess("benchmarks.core.attention", {"form": form, "file": str(file)})["bytes"])
            for form in FORMS
        }


@torch.inference_mode()
def child(task: dict[str, str]) -> None:
    x = torch.load(task["file"], weights_only=True)
    form = FORMS[task["form"]]
    form(x[:1, :8])  # the first call loads libraries
    before = peak_memory()
    form(x)
    print(json.dumps({"bytes": peak_memory() - before}))


if __name__ == "__main__":
    sys.exit(main())
