"""Runs of runs: twins that fork, lottery tickets, a search over growth, a published network trained again."""

from growlib.studies.forking import Fork, fork, twin
from growlib.studies.search import search_growth
from growlib.studies.synaptic import Rerun
from growlib.studies.tickets import Ticket, lottery, masks_of, shuffled, wire
