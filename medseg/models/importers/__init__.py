"""Other tools' models -> packages of this project. Nothing that a foreign file holds is ever run."""
