"""What several families of networks use."""
