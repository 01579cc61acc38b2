"""Sparse networks: a budget of connections, two backends that hold it, and how the connections lie."""

from growlib.sparsity.averages import refuse_average
from growlib.sparsity.budget import erk, ranked, rewire, sparsify, uniform
from growlib.sparsity.csr import CsrLinear
from growlib.sparsity.masked import SparseConv2d, SparseLinear, as_masked
from growlib.sparsity.wiring import budget_report, cut_off, degrees
