"""Reward fine-tuning of controls (after ControlNet++, Li et al. 2024, section 3): at small
timesteps the picture that a prediction stands for is decoded, its hint is read back differentiably,
and the distance to the given hint is added to the loss.

registry.py    condition → how its hint is read back and compared
edges.py, colours.py     readings in closed form: what `zeroconv.conditions` draws, made smooth
networks.py    readings by a second reader, which never judges
distances.py   how two maps are compared
piecewise.py   the gradient of few pictures at a time, so that memory is bounded
reward.py      from predictions to the reward's part of the loss
"""
