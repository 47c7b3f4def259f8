"""Matrices known by their products: algebra, the exact Hessian and Gauss-Newton matrix, gradients, Jacobians."""

from tremorscope.instruments.operators.composed import Damped as Damped
from tremorscope.instruments.operators.composed import Product as Product
from tremorscope.instruments.operators.composed import Restricted as Restricted
from tremorscope.instruments.operators.composed import Scaled as Scaled
from tremorscope.instruments.operators.composed import Sum as Sum
from tremorscope.instruments.operators.composed import Transposed as Transposed
from tremorscope.instruments.operators.fisher import EmpiricalFisher as EmpiricalFisher
from tremorscope.instruments.operators.gauss_newton import GaussNewton as GaussNewton
from tremorscope.instruments.operators.gauss_newton import residual_curvature as residual_curvature
from tremorscope.instruments.operators.hessian import Hessian as Hessian
from tremorscope.instruments.operators.jacobian import Jacobian as Jacobian
from tremorscope.instruments.operators.model_jacobian import ModelJacobian as ModelJacobian
from tremorscope.instruments.operators.operator import Dense as Dense
from tremorscope.instruments.operators.operator import Identity as Identity
from tremorscope.instruments.operators.operator import LinearOperator as LinearOperator
from tremorscope.instruments.operators.operator import columnwise as columnwise
from tremorscope.instruments.operators.per_example import PerExampleGradients as PerExampleGradients
from tremorscope.instruments.operators.per_example import gradient_gram as gradient_gram
from tremorscope.instruments.operators.product_cost import ProductCost as ProductCost
from tremorscope.instruments.operators.second_order import saved_bytes as saved_bytes
