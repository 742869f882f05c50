"""The controller's gRPC services: thin handlers in front of check-ins, blocks, jobs and rollouts."""
