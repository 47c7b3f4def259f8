from __future__ import annotations

import json
import logging
import os
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.instruments.language.tiny_models import MODELS, VOCABULARY, tiny_tokenizer
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments import hub
from tremorscope.instruments.language.encode import encode
from tremorscope.instruments.language.generation import generate
from tremorscope.instruments.load import load
from tremorscope.instruments.network import Network

TOKENS = torch.tensor([[0, 3, 4, 5, 6], [0, 9, 8, 7, 3]])


@pytest.fixture
def no_network(monkeypatch):
    """Every way out is a failure."""

    def refuse(*arguments, **options):
        pytest.fail(f"the network was touched: {arguments}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty cache, and a network in which nothing is there; the attempts to connect."""
    attempts = []

    def refuse(*arguments, **options):
        attempts.append(arguments)
        raise OSError("no network")

    for name in (*hub.OFFLINE, "HF_ENDPOINT", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return attempts


@pytest.fixture
def saved(tmp_path):
    """`saved("gpt2")`: the module, and the folder that it was written to."""

    def save(name, *, tokenizer=True):
        module = MODELS[name]()
        folder = tmp_path / name
        module.save_pretrained(folder)
        if tokenizer:
            tiny_tokenizer().save_pretrained(folder)
        return module, folder

    return save


@pytest.mark.parametrize("name", MODELS)
def test_every_family_loads_by_the_same_call(name, saved, no_network, capfd):
    module, folder = saved(name)
    capfd.readouterr()
    network = load(f"hf:{folder}")
    assert capfd.readouterr() == ("", "")
    assert type(network.module) is type(module)
    assert not any(part.training for part in network.module.modules())
    with torch.no_grad():
        batch = encode(network, ["one two three", "four"])
        assert torch.equal(network.module(**batch.kwargs).logits, module(**batch.kwargs).logits)
        assert torch.equal(network.module(TOKENS).logits, module(TOKENS).logits)
        torch.testing.assert_close(network.apply(network.params, batch), module(**batch.kwargs).logits)
    assert all(torch.equal(weight, network.params[name]) for name, weight in module.named_parameters())
    assert network.tokenizer("one two")["input_ids"] == [0, 3, 4]
    assert (network.name, network.task, network.dtype) == (name, None, torch.float32)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_both_kinds_of_derivative_work(name, saved):
    _, folder = saved(name)
    network = load(f"hf:{folder}", dtype="float64")
    batch = encode(network, ["one two three", "four five six"])
    theta = network.theta
    along = torch.randn(network.layout.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    output, tangent = torch.func.jvp(lambda theta: network.apply(theta, batch), (theta,), (along,))
    _, back = torch.func.vjp(lambda theta: network.apply(theta, batch), theta)
    # Llama's normalisation is computed in float32, whatever the weights are.
    rtol, step, atol = (1e-6, 1e-4, 1e-2) if name == "llama" else (1e-10, 1e-6, 1e-6)
    torch.testing.assert_close(back(tangent)[0] @ along, tangent.square().sum(), rtol=rtol, atol=0)
    nearby = [network.apply(theta + sign * step * along, batch) for sign in (1, -1)]
    torch.testing.assert_close((nearby[0] - nearby[1]) / (2 * step), tangent, rtol=1e-5, atol=atol)
    assert tangent.abs().max() > 10
    rows = torch.vmap(lambda theta: network.apply(theta, batch))(torch.stack([theta, theta + along]))
    torch.testing.assert_close(rows[0], output)


def test_precision_and_place(saved):
    module, folder = saved("llama")
    double = load(f"hf:{folder}", dtype="float64")
    assert (double.dtype, double.module.dtype) == (torch.float64, torch.float64)
    torch.testing.assert_close(double.module(TOKENS).logits, module(TOKENS).logits.double(), rtol=1e-4, atol=1e-5)
    module.to(torch.bfloat16).save_pretrained(folder)
    assert load(f"hf:{folder}").dtype == torch.bfloat16, "as saved"
    assert load(f"hf:{folder}", dtype=torch.float32).dtype == torch.float32
    assert load(f"hf:{folder}", device="meta").device.type == "meta"


def test_a_folder_without_a_tokenizer_is_a_model_alone(saved):
    _, folder = saved("gpt2", tokenizer=False)
    network = load(f"hf:{folder}")
    assert network.tokenizer is None
    with pytest.raises(BadInput, match="tokenizer of 'gpt2': got none"):
        generate(network, ["one"], max_new_tokens=1)


def test_folders_may_be_relative_and_win_over_names(saved, monkeypatch, no_network):
    _, folder = saved("gpt2")
    monkeypatch.chdir(folder.parent)
    for spec in ("hf:gpt2", "hf:./gpt2", "hf:gpt2/", "hf:../" + folder.parent.name + "/gpt2"):
        assert load(spec).name == "gpt2"


def test_nothing_outside_changes(saved):
    import transformers
    from huggingface_hub.utils import are_progress_bars_disabled

    def outside():
        return (
            dict(os.environ),
            torch.get_default_dtype(),
            torch.random.get_rng_state().tolist(),
            torch.is_grad_enabled(),
            logging.getLogger("transformers").level,
            logging.getLogger("huggingface_hub").level,
            transformers.utils.logging.is_progress_bar_enabled(),
            are_progress_bars_disabled(),
        )

    _, folder = saved("gpt2")
    before = outside()
    load(f"hf:{folder}", dtype="float64")
    assert outside() == before
    (folder / "model.safetensors").write_bytes(b"no")
    with pytest.raises(BadInput):
        load(f"hf:{folder}", dtype="float64")
    assert outside() == before


def without(folder, name):
    (folder / name).unlink()


def as_pickle(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    without(folder, "model.safetensors")


def lacking(*names):
    def lose(folder):
        weights = load_file(folder / "model.safetensors")
        kept = {name: value for name, value in weights.items() if name not in names}
        save_file(kept | {f"other.{name}": weights[name] for name in names}, folder / "model.safetensors")

    return lose


def reshaped(folder):
    weights = load_file(folder / "model.safetensors")
    weights["transformer.h.1.ln_1.weight"] = torch.zeros(3)
    save_file(weights, folder / "model.safetensors")


def saying(**changes):
    def write(folder):
        path = folder / "config.json"
        settings = json.loads(path.read_text()) | changes
        path.write_text(json.dumps(settings))

    return write


def with_words(*words):
    return lambda folder: tiny_tokenizer(words=words).save_pretrained(folder)


FAULTS = {
    "no config": (lambda folder: without(folder, "config.json"), r"got a folder without config.json \(generation_conf"),
    "no weights": (
        lambda folder: without(folder, "model.safetensors"),
        "got none in the folder; wanted model.safetenso",
    ),
    "pickles": (as_pickle, r"got only pickles \(pytorch_model.bin\), which can run code.*convert them once"),
    "truncated": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:200]),
        "got SafetensorError: .*; wanted files as save_pretrained writes them",
    ),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{no"), "config.json of .*; wanted whole JSON"),
    "no object": (lambda folder: (folder / "config.json").write_text("[]"), "got list; wanted a JSON object"),
    "a key is missing": (
        lacking("transformer.h.1.ln_1.weight"),
        r"got no transformer.h.1.ln_1.weight; wanted every weight of GPT2LMHeadModel.*"
        r"holds other.transformer.h.1.ln_1.weight besides",
    ),
    "many keys are missing": (
        lacking(
            *(
                f"transformer.h.{layer}.ln_{place}.{kind}"
                for layer in (0, 1)
                for place in (1, 2)
                for kind in ("weight", "bias")
            )
        ),
        r"got no transformer.h.0.ln_1.bias, transformer.h.0.ln_1.weight, transformer.h.0.ln_2.bias and 5 more",
    ),
    "another shape": (
        reshaped,
        r"got transformer.h.1.ln_1.weight of shape \(3,\); wanted \(16,\), as config.json says",
    ),
    "another class": (
        saying(architectures=["LlamaForCausalLM"]),
        "got model_type 'gpt2' with class 'LlamaForCausalLM'; wanted model_type 'llama'",
    ),
    "an unknown class": (saying(architectures=["Foo"]), "got class 'Foo'; wanted a class of transformers"),
    "no model class": (saying(architectures=["Trainer"]), "got class 'Trainer'; wanted a class of transformers"),
    "code of its own": (
        saying(architectures=["Foo"], auto_map={"AutoModelForCausalLM": "foo.Foo"}),
        "got class 'Foo', which comes with code of its own",
    ),
    "an unknown type": (saying(architectures=[], model_type="foo"), "got ValueError: .*`foo`"),
    "too many tokens": (
        with_words(*(f"word{index}" for index in range(VOCABULARY))),
        f"got {VOCABULARY + 3} tokens; wanted at most {VOCABULARY}, as many as the model's embedding",
    ),
    "a damaged tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_text("{"),
        "tokenizer of .*; wanted one that transformers reads",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_folders_that_are_no_model(fault, saved, no_network, capfd):
    spoil, sentence = FAULTS[fault]
    _, folder = saved("gpt2")
    spoil(folder)
    capfd.readouterr()
    with pytest.raises(BadInput, match=sentence) as caught:
        load(f"hf:{folder}")
    assert capfd.readouterr() == ("", "")
    assert "\n" not in str(caught.value)


def test_code_in_a_folder_is_not_run(saved, tmp_path):
    _, folder = saved("gpt2")
    (folder / "foo.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Foo: pass\n")
    saying(auto_map={"AutoConfig": "foo.Foo", "AutoModelForCausalLM": "foo.Foo"})(folder)
    assert load(f"hf:{folder}").name == "gpt2"
    saying(model_type="foo", architectures=[])(folder)
    with pytest.raises(BadInput):
        load(f"hf:{folder}")
    assert not (tmp_path / "ran").exists()


def test_a_smaller_tokenizer_is_fine(saved):
    _, folder = saved("gpt2")
    with_words("one")(folder)
    assert load(f"hf:{folder}").tokenizer("one")["input_ids"] == [0, 3]


def test_paths_that_are_no_folder(saved, monkeypatch, no_network):
    _, folder = saved("gpt2")
    for spec, sentence in (
        (f"hf:{folder.parent}/gpt3", "got no such folder; wanted a folder that exists. Did you mean '.*gpt2'"),
        ("hf:./nowhere", "got no such folder"),
        ("hf:a/b/c", "got no such folder"),
        (f"hf:{folder}/config.json", "got a file; wanted a folder with config.json"),
        (f"hf:{folder}@main", "got a revision of a folder; wanted a revision of a model of the hub. Write hf:.*/gpt2."),
        ("hf:", "got neither a folder that exists nor a model's name"),
        ("hf:two words", "got neither a folder that exists nor a model's name"),
    ):
        with pytest.raises(BadInput, match=sentence):
            load(spec)


@pytest.mark.parametrize("spec", ["hf:gpt2", "hf:openai-community/gpt2@main"])
def test_a_name_without_network_fails_after_one_attempt(spec, offline, capfd):
    with pytest.raises(
        BadInput, match=r"huggingface.co does not answer.*builtin:microworld needs no network"
    ) as caught:
        load(spec)
    assert spec in str(caught.value)
    assert len(offline) == 1
    assert offline[0][:2] == ("huggingface.co", 443)
    assert capfd.readouterr() == ("", "")


def test_the_environment_may_forbid_the_attempt(offline, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BadInput, match=r"HF_HUB_OFFLINE says not to ask the hub.*builtin:microworld"):
        load("hf:gpt2")
    assert offline == []


def test_a_proxy_is_asked_in_place_of_the_hub(offline, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert not hub.answers()
    assert offline[0][:2] == ("proxy.example", 3128)
    monkeypatch.setenv("no_proxy", "huggingface.co")
    assert not hub.answers()
    assert offline[1][:2] == ("huggingface.co", 443)
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example/hf")
    assert hub.address() == ("mirror.example", 80)


def test_a_copy_in_the_cache_is_used_as_it_is(saved, offline, tmp_path):
    module, folder = saved("gpt2")
    place = tmp_path / "cache" / "models--somebody--small"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    folder.rename((place / "snapshots").mkdir() or place / "snapshots" / "abc")
    network = load("hf:somebody/small")
    assert torch.equal(network.theta, Network(module).theta)
    assert network.name == "somebody/small"
    assert offline == []


def test_what_the_hub_answers_is_told(offline, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot_download(name, *, local_files_only, **options):
        if local_files_only:
            raise LocalEntryNotFoundError("no copy")
        raise OSError("404 Client Error.\n\nRepository Not Found for url: ...")

    monkeypatch.setattr(hub, "answers", lambda: True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(
        BadInput, match=r"model 'hf:nosuch@x': got .*the hub said OSError: 404 Client Error\.; wanted the"
    ):
        load("hf:nosuch@x")
