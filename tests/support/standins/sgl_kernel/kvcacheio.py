"""Copies between a device pool and a host pool, in host memory: the stand-in for ``sgl_kernel.kvcacheio``.

Names and parameters are those that SGLang calls. Layouts of one K, V or MLA buffer:

* ``lf``, layer first: one tensor a layer, ``[token, ...]``
* ``pf``, page first: ``[token, layer, ...]``
* ``direct_pf``, page first, whole pages: ``[page, layer, token in page, ...]``
* ``ph``, page and head first: ``[page, head, token in page, layer, ...]``

Indices count tokens. ``item_size`` is the bytes of one token in one layer. The ``all_layer`` kernels get
their layers as a tensor of addresses, as the CUDA kernels do.
"""

from __future__ import annotations

import ctypes

import torch


def _pairs(src_indices, dst_indices):
    if src_indices.numel() != dst_indices.numel():
        raise ValueError(f"{src_indices.numel()} source indices for {dst_indices.numel()} destinations")
    return src_indices.long().flatten(), dst_indices.long().flatten()


def _page_starts(src_indices, dst_indices, page_size: int):
    src, dst = _pairs(src_indices, dst_indices)
    if src.numel() % page_size:
        raise ValueError(f"{src.numel()} indices are no whole number of pages of {page_size} tokens")
    return zip(src[::page_size].tolist(), dst[::page_size].tolist(), strict=True)


def _as_bytes(tensor, *shape: int):
    """The same memory as uint8; refuses what would have to be copied, for a write there would be lost."""
    return tensor.view(torch.uint8).view(*shape)


def _layer_at(address, indices, item_size: int):
    """The ``[token, byte]`` view of a layer given by its address, long enough for ``indices``."""
    tokens = int(indices.max()) + 1 if indices.numel() else 1
    memory = (ctypes.c_uint8 * (tokens * item_size)).from_address(int(address))
    return torch.frombuffer(memory, dtype=torch.uint8).view(tokens, item_size)


def _check_item(layer, item_size: int) -> None:
    held = layer[0].numel() * layer.element_size()
    if held != item_size:
        raise ValueError(f"item_size is {item_size} bytes, one token of the layer has {held}")


# One layer, by tensors ("kernel" backend, host to device)


def transfer_kv_per_layer_mla(src, dst, src_indices, dst_indices, item_size, *_tuning, **_options) -> None:
    source, target = _pairs(src_indices, dst_indices)
    _check_item(src, item_size)
    dst[target] = src[source]


def transfer_kv_per_layer(
    src_k, dst_k, src_v, dst_v, src_indices, dst_indices, item_size, *_tuning, **_options
) -> None:
    transfer_kv_per_layer_mla(src_k, dst_k, src_indices, dst_indices, item_size)
    transfer_kv_per_layer_mla(src_v, dst_v, src_indices, dst_indices, item_size)


def transfer_kv_per_layer_mla_pf_lf(
    src, dst, src_indices, dst_indices, layer_id, item_size, src_layout_dim, *_tuning, **_options
) -> None:
    source, target = _pairs(src_indices, dst_indices)
    _check_item(dst, item_size)
    dst[target] = src[source, layer_id]


def transfer_kv_per_layer_pf_lf(
    src_k, dst_k, src_v, dst_v, src_indices, dst_indices, layer_id, item_size, src_layout_dim, *_tuning, **_options
) -> None:
    for src, dst in ((src_k, dst_k), (src_v, dst_v)):
        transfer_kv_per_layer_mla_pf_lf(src, dst, src_indices, dst_indices, layer_id, item_size, src_layout_dim)


def transfer_kv_per_layer_ph_lf(
    src_k,
    dst_k,
    src_v,
    dst_v,
    src_indices,
    dst_indices,
    layer_id,
    item_size,
    src_layout_dim,
    page_size,
    head_num,
    *_tuning,
    **_options,
) -> None:
    source, target = _pairs(src_indices, dst_indices)
    for src, dst in ((src_k, dst_k), (src_v, dst_v)):
        _check_item(dst, item_size)
        dst[target] = src[source // page_size, :, source % page_size, layer_id]


# All layers, by addresses ("kernel" backend, device to host)


def transfer_kv_all_layer_mla(
    src_layers, dst_layers, src_indices, dst_indices, item_size, num_layers, *_tuning, **_options
) -> None:
    source, target = _pairs(src_indices, dst_indices)
    for src, dst in zip(src_layers.tolist()[:num_layers], dst_layers.tolist()[:num_layers], strict=True):
        _layer_at(dst, target, item_size)[target] = _layer_at(src, source, item_size)[source]


def transfer_kv_all_layer(
    src_k_layers,
    dst_k_layers,
    src_v_layers,
    dst_v_layers,
    src_indices,
    dst_indices,
    item_size,
    num_layers,
    *_tuning,
    **_options,
) -> None:
    transfer_kv_all_layer_mla(src_k_layers, dst_k_layers, src_indices, dst_indices, item_size, num_layers)
    transfer_kv_all_layer_mla(src_v_layers, dst_v_layers, src_indices, dst_indices, item_size, num_layers)


def transfer_kv_all_layer_mla_lf_pf(
    src_layers, dst, src_indices, dst_indices, item_size, dst_layout_dim, num_layers, *_tuning, **_options
) -> None:
    source, target = _pairs(src_indices, dst_indices)
    if dst_layout_dim != item_size * num_layers:
        raise ValueError(f"dst_layout_dim is {dst_layout_dim}, {num_layers} layers of {item_size} bytes are not")
    host = _as_bytes(dst, dst.shape[0], num_layers, item_size)
    for layer, address in enumerate(src_layers.tolist()[:num_layers]):
        host[target, layer] = _layer_at(address, source, item_size)[source]


def transfer_kv_all_layer_lf_pf(
    src_k_layers,
    dst_k,
    src_v_layers,
    dst_v,
    src_indices,
    dst_indices,
    item_size,
    dst_layout_dim,
    num_layers,
    *_tuning,
    **_options,
) -> None:
    for layers, dst in ((src_k_layers, dst_k), (src_v_layers, dst_v)):
        transfer_kv_all_layer_mla_lf_pf(layers, dst, src_indices, dst_indices, item_size, dst_layout_dim, num_layers)


def transfer_kv_all_layer_lf_ph(
    src_k_layers,
    dst_k,
    src_v_layers,
    dst_v,
    src_indices,
    dst_indices,
    item_size,
    dst_layout_dim,
    num_layers,
    page_size,
    head_num,
    *_tuning,
    **_options,
) -> None:
    source, target = _pairs(src_indices, dst_indices)
    head_bytes = item_size // head_num
    for layers, dst in ((src_k_layers, dst_k), (src_v_layers, dst_v)):
        host = _as_bytes(dst, dst.shape[0], head_num, page_size, num_layers, head_bytes)
        for layer, address in enumerate(layers.tolist()[:num_layers]):
            rows = _layer_at(address, source, item_size)[source]
            host[target // page_size, :, target % page_size, layer] = rows.view(-1, head_num, head_bytes)


# By tensors, page by page ("direct" backend)


def transfer_kv_direct(src_layers, dst_layers, src_indices, dst_indices, page_size) -> None:
    source, target = _pairs(src_indices, dst_indices)
    for src, dst in zip(src_layers, dst_layers, strict=True):
        dst[target] = src[source]


def transfer_kv_per_layer_direct_pf_lf(src_ptrs, dst_ptrs, src_indices, dst_indices, layer_id, page_size) -> None:
    for start, to in _page_starts(src_indices, dst_indices, page_size):
        for src, dst in zip(src_ptrs, dst_ptrs, strict=True):
            dst[to : to + page_size] = src[start // page_size, layer_id]


def transfer_kv_all_layer_direct_lf_pf(src_ptrs, dst_ptrs, src_indices, dst_indices, page_size) -> None:
    layers = len(src_ptrs) // len(dst_ptrs)
    for start, to in _page_starts(src_indices, dst_indices, page_size):
        for position, src in enumerate(src_ptrs):
            dst_ptrs[position // layers][to // page_size, position % layers] = src[start : start + page_size]
