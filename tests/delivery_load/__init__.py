"""A controller under the load of many downloads: what its tests and its benchmark are made of."""
