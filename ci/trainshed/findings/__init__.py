"""Findings of scanners, the policy over them, and waivers. Pure: no process, no network."""
