"""Pictures of the network: `boxes` says where every domain and node is, `svg` draws them, `states` gives nodes colours.

What is drawn over the picture takes the nodes' places from `Picture.cells`.
"""

from ring_operator.cli.drawing.boxes import Box, Cell, Picture, lay_out
from ring_operator.cli.drawing.states import State, states_of
from ring_operator.cli.drawing.svg import draw

__all__ = ["Box", "Cell", "Picture", "State", "draw", "lay_out", "states_of"]
