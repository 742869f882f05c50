"""The manifest: what the operator writes. Text in, values or one line for each problem out; the world is not asked."""

from edgewright_controller.manifest.assignment import Assignment
from edgewright_controller.manifest.errors import ManifestError, Problem
from edgewright_controller.manifest.parse import load, parse, read_text
from edgewright_controller.manifest.profiles import GgufProfile, MlxProfile, OnnxProfile, Profile
from edgewright_controller.manifest.rollout import Rollout, Wave
from edgewright_controller.manifest.schema import Device, Fleet, Group, Manifest, Model, Probe, json_schema
from edgewright_controller.manifest.selection import SelectionError, select
from edgewright_controller.manifest.timing import Timing

__all__ = [
    "Assignment",
    "Device",
    "Fleet",
    "GgufProfile",
    "Group",
    "Manifest",
    "ManifestError",
    "MlxProfile",
    "Model",
    "OnnxProfile",
    "Probe",
    "Problem",
    "Profile",
    "Rollout",
    "SelectionError",
    "Timing",
    "Wave",
    "json_schema",
    "load",
    "parse",
    "read_text",
    "select",
]
