"""Silent faults, planted into builds that the real builder makes and its gate must refuse."""
