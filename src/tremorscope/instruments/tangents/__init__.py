"""Tangents of training: push a nudge of the first weights through every step to the last ones, and pull back."""

from tremorscope.instruments.tangents.generic import RecipeTangents as RecipeTangents
from tremorscope.instruments.tangents.generic import TrainingTangents as TrainingTangents
from tremorscope.instruments.tangents.routes import Route as Route
from tremorscope.instruments.tangents.routes import Tangents as Tangents
from tremorscope.instruments.tangents.routes import block_width as block_width
from tremorscope.instruments.tangents.routes import structure as structure
from tremorscope.instruments.tangents.routes import tangents as tangents
from tremorscope.instruments.tangents.stack import LinearStack as LinearStack
from tremorscope.instruments.tangents.stack import recognise_stack as recognise_stack
from tremorscope.instruments.tangents.structured import StructuredTangents as StructuredTangents
from tremorscope.instruments.tangents.training_map import TrainingMap as TrainingMap
