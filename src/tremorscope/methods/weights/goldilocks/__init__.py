"""The Goldilocks zone: at what distance from the origin is the loss unusually convex, and is my start there?

Inside a random hyperplane of `d` dimensions through the weights, the Hessian is a small symmetric matrix `H_d`. Its
excess of positive curvature, `kappa = Tr(H_d) / ||H_d||_F` and the share `f_+` of positive eigenvalues, is measured
along a range of weight norms, or of softmax temperatures, beside the same curvatures with random signs.

What would falsify it: a kappa that peaks nowhere between small and large norms, or that random signs reach too.

Source: Fort and Scherlis 2018, "The Goldilocks zone: towards better understanding of neural network loss
landscapes", arXiv:1807.02581; Vysogorets, Dawid and Kempe 2024, "Deconstructing the Goldilocks zone of neural network
initialization", arXiv:2402.03579.
"""

from tremorscope.methods.weights.goldilocks.foretold import ForetoldCurve as ForetoldCurve
from tremorscope.methods.weights.goldilocks.foretold import foretell_goldilocks as foretell_goldilocks
from tremorscope.methods.weights.goldilocks.full_space import FullSpace as FullSpace
from tremorscope.methods.weights.goldilocks.full_space import measure_full_space as measure_full_space
from tremorscope.methods.weights.goldilocks.hyperplane_training import HyperplaneTraining as HyperplaneTraining
from tremorscope.methods.weights.goldilocks.hyperplane_training import rank_correlation as rank_correlation
from tremorscope.methods.weights.goldilocks.hyperplane_training import train_on_hyperplanes as train_on_hyperplanes
from tremorscope.methods.weights.goldilocks.measurement import GoldilocksMeasurement as GoldilocksMeasurement
from tremorscope.methods.weights.goldilocks.measurement import measure_goldilocks as measure_goldilocks
from tremorscope.methods.weights.goldilocks.measurement import over_members as over_members
from tremorscope.methods.weights.goldilocks.position import ZonePosition as ZonePosition
from tremorscope.methods.weights.goldilocks.position import zone_position as zone_position
from tremorscope.methods.weights.goldilocks.restricted import RestrictedCurvature as RestrictedCurvature
from tremorscope.methods.weights.goldilocks.restricted import random_basis as random_basis
from tremorscope.methods.weights.goldilocks.restricted import restricted_curvature as restricted_curvature
from tremorscope.methods.weights.goldilocks.scaling import scaled_weights as scaled_weights
from tremorscope.methods.weights.goldilocks.scaling import tempered as tempered
from tremorscope.methods.weights.goldilocks.selection import InitialisationRanking as InitialisationRanking
from tremorscope.methods.weights.goldilocks.selection import select_initialisation as select_initialisation
from tremorscope.methods.weights.goldilocks.statistics import Positivity as Positivity
from tremorscope.methods.weights.goldilocks.statistics import positivity as positivity
from tremorscope.methods.weights.goldilocks.zone import Zone as Zone
from tremorscope.methods.weights.goldilocks.zone import find_zone as find_zone
from tremorscope.methods.weights.goldilocks.zone import prominence as prominence
