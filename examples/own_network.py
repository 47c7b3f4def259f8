"""A network of your own, from module to report: nothing to subclass, nothing to register."""

import torch
from torch import nn

from tremorscope import Network, Task, Trainer, examine, momentum

torch.manual_seed(0)
inputs = torch.randn(600, 8)
labels = (inputs[:, 0] * inputs[:, 1] > 0).long()
module = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 2))  # any module will do
recipe = Trainer(optimiser=momentum(lr=0.3), num_steps=300, batch_size=50)
network = Network(module, task=Task.of(inputs, labels, num_test=100), recipe=recipe, name="same sign?")
result, folder = examine(network)
print(*result.summary, folder / "report.html", sep="\n")
