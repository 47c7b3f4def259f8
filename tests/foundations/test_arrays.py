import pytest
import torch

from tremorscope.foundations.arrays import hash_tensors, read_arrays, read_arrays_and_metadata, write_arrays
from tremorscope.foundations.errors import BadInput


def test_views_shared_and_empty_tensors_come_back(tmp_path):
    flat = torch.arange(6.0, dtype=torch.float64)
    arrays = {
        "flat": flat,
        "again": flat,
        "view": flat[2:4],
        "turned": flat.reshape(2, 3).T,
        "scalar": torch.tensor(3, dtype=torch.int64),
        "empty": torch.zeros(0, 2),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "with_grad": torch.ones(2, requires_grad=True),
    }
    write_arrays(tmp_path / "a.safetensors", arrays, metadata={"axes": "params"})
    loaded, notes = read_arrays_and_metadata(tmp_path / "a.safetensors")
    assert loaded.keys() == arrays.keys()
    for name, tensor in arrays.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
    assert notes == {"axes": "params"}


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_damaged_files_are_named(keep, tmp_path):
    path = tmp_path / "a.safetensors"
    write_arrays(path, {"a": torch.ones(4)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadInput, match=r"a.safetensors is damaged: got .* Delete it"):
        read_arrays(path)


def test_missing_files_and_bad_places_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"nothing.safetensors is missing"):
        read_arrays(tmp_path / "nothing.safetensors")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="cannot write"):
        write_arrays(tmp_path / "file" / "a.safetensors", {"a": torch.ones(1)})


def test_a_hash_sees_names_types_shapes_and_bits():
    base = torch.tensor([1.0, 0.0])
    different = [
        {"a": base},
        {"b": base},
        {"a": base.double()},
        {"a": base[None]},
        {"a": torch.tensor([1.0, -0.0])},
        {"a": base, "b": base},
        {"a": base.view(torch.int32)},
        {},
    ]
    assert len({hash_tensors(tensors) for tensors in different}) == len(different)


def test_a_hash_does_not_see_order_or_memory():
    matrix = torch.arange(6.0).reshape(2, 3)
    assert hash_tensors({"a": matrix.T}) == hash_tensors({"a": matrix.T.contiguous()})
    assert hash_tensors({"a": matrix, "b": matrix}) == hash_tensors({"b": matrix, "a": matrix})
    assert hash_tensors({"empty": torch.zeros(0)}) != hash_tensors({"empty": torch.zeros(0, 1)})
