"""What is done for one component: build and push, scan, test. The stages around decide whether, and keep the verdicts."""
