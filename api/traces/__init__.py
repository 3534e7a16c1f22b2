"""Traces of sagas, made from what their histories say: `raysaga traces` sends them."""
