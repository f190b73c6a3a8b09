"""The launcher beside three others on the development cluster: who they are, what they are put through, what became of it."""
