import getpass
import json
import platform
import re
from pathlib import Path

import torch

from tremorscope.foundations import environment as module
from tremorscope.foundations.environment import environment, memory_bytes


def test_it_says_what_a_reader_needs():
    found = json.loads(json.dumps(environment()))
    assert found["packages"]["torch"] == torch.__version__
    assert found["python"] == platform.python_version()
    assert found["torch_threads"] == torch.get_num_threads()
    assert found["cores"] >= 1
    assert found["memory_bytes"] == memory_bytes() > 2**28
    assert found["cpu"]


def test_it_names_no_host_user_or_path():
    text = json.dumps(environment())
    assert not re.search(r"[\"' ](/|[A-Z]:\\)", text)
    assert str(Path.home()) not in text or str(Path.home()) == "/"
    for name in (platform.node(), getpass.getuser()):
        assert not re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE) or len(name) < 3


def test_outside_a_checkout_there_is_no_code_state(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "__file__", str(tmp_path / "lib/python/site-packages/tremorscope/environment.py"))
    assert module.code_state() is None


def test_in_a_checkout_the_commit_is_named():
    state = module.code_state()
    if state is not None:  # an installed package has none
        assert re.fullmatch("[0-9a-f]{40,64}", state["commit"])
        assert isinstance(state["changed"], bool)
