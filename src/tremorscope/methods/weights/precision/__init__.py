"""How low can the error of a fit go, what stops it, and which approximator should be used?"""
