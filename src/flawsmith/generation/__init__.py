"""From a configuration to images: plan, requests, run."""
