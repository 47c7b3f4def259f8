"""Modules in the Hessian: weight directions that break one way of solving a task and keep another."""
