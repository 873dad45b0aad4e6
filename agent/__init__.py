"""JUDGEMENT: observations become cases. A pure core in a thin shell, without any privilege."""
