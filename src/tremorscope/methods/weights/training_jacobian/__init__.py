"""The training Jacobian: where does training carry a nudge of the initial weights?

`J = d theta_T / d theta_0` of a whole training run, its singular values and directions, and what they mean:
*chaotic* directions (`sigma > 1`) are amplified, the *bulk* (`sigma = 1`) is carried over unchanged and
unturned, *stable* ones (`sigma < 1`) are forgotten.

What would falsify the published reading: if networks trained on random labels, or no network at all, had the
same bulk, it would tell of the inputs and not of training. Both nulls are measured here beside it.

Source: Belrose and Scherlis 2024, "Understanding Gradient Descent through the Training Jacobian",
arXiv:2412.07003.
"""

from tremorscope.methods.weights.training_jacobian.dense import TrainingJacobian as TrainingJacobian
from tremorscope.methods.weights.training_jacobian.dense import bound_recipe as bound_recipe
from tremorscope.methods.weights.training_jacobian.dense import estimated_seconds as estimated_seconds
from tremorscope.methods.weights.training_jacobian.dense import fits_in_memory as fits_in_memory
from tremorscope.methods.weights.training_jacobian.dense import training_jacobian as training_jacobian
from tremorscope.methods.weights.training_jacobian.input_span import low_variance_directions as low_variance_directions
from tremorscope.methods.weights.training_jacobian.measurement import (
    TrainingJacobianMeasurement as TrainingJacobianMeasurement,
)
from tremorscope.methods.weights.training_jacobian.measurement import (
    measure_training_jacobian as measure_training_jacobian,
)
from tremorscope.methods.weights.training_jacobian.operator_form import (
    OperatorFormMeasurement as OperatorFormMeasurement,
)
from tremorscope.methods.weights.training_jacobian.operator_form import (
    measure_operator_form as measure_operator_form,
)
from tremorscope.methods.weights.training_jacobian.regions import LiveSpectrum as LiveSpectrum
from tremorscope.methods.weights.training_jacobian.regions import live_spectrum as live_spectrum
from tremorscope.methods.weights.training_jacobian.regions import span_overlap as span_overlap
from tremorscope.methods.weights.training_jacobian.retraining import (
    characteristic_directions as characteristic_directions,
)
from tremorscope.methods.weights.training_jacobian.retraining import retrain_from_nudges as retrain_from_nudges
from tremorscope.methods.weights.training_jacobian.retraining import retrain_inside as retrain_inside
from tremorscope.methods.weights.training_jacobian.steps import worst_divergence as worst_divergence
